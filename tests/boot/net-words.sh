#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ospite net and the network options as a new user meets them: what goes says what it did, what does not go is one line that names
# what, where and the remedy. usage: net-words.sh OSPITE
set -u
ospite=$(realpath "$1")
failed=0
work=$(mktemp -d)
holder=
ended() {
	[ -n "$holder" ] && kill "$holder" 2>/dev/null
	[ -d "$work/root/networks/kept" ] && "$ospite" net rm --force --quiet kept 2>/dev/null
	rm -rf "$work"
}
trap ended EXIT
cd "$work" || exit 1
export OSPITE_ROOT="$work/root"
# a Multiboot kernel that halts: machines are refused before it starts
printf '\002\260\255\033\000\000\001\000\376\117\121\344\000\000\020\000\000\000\020\000\000\000\000\000\000\000\000\000\040\000\020\000\364\353\375' >kernel

fail() {
	failed=$((failed + 1))
	echo "FAILED: $*"
}

# refuse PATTERN COMMAND...: status 125 and one line
refuse() {
	pattern=$1
	shift
	# shellcheck disable=SC2086 # words
	timeout 60 $as "$ospite" "$@" </dev/null >out 2>err
	status=$?
	if [ $status != 125 ] || [ "$(wc -l <err)" != 1 ] || [ -s out ] || ! grep -q "^ospite: .*$pattern" err; then
		fail "ospite $*: status $status, expected '$pattern': $(cat out err)"
	fi
}

# says PATTERN COMMAND...: status 0
says() {
	pattern=$1
	shift
	timeout 60 "$ospite" "$@" </dev/null >out 2>err || fail "ospite $*: status $?: $(cat err)"
	grep -q -- "$pattern" out || fail "ospite $*: expected '$pattern': $(cat out err)"
}
as=

# names
refuse "unknown 'net frob'; 'ospite net --help' lists the verbs" net frob
refuse "did you mean 'net create'" net creat
refuse "usage: ospite net create NAME .OPTION...]; see 'ospite net create --help'" net create
refuse "usage: ospite net ls .OPTION" net ls lab
refuse "'bad name' is no name for a machine, template or network: use letters" net create 'bad name'
refuse "'../x' is no name" net create ../x
refuse "a name has at most 63 characters" net create "$(printf %064d 0)"
for verb in show stop rm start; do
	refuse "there is no network 'lab': 'ospite net ls' lists them, 'ospite net create lab' makes it" net $verb lab
done
refuse "there is no network 'lab'" net capture lab out.pcap
refuse "net switch:lab: there is no network 'lab'.*'ospite net create lab' makes it" run --kernel kernel --net switch:lab
refuse "needs a name of 1 to 63" run --kernel kernel --net "switch:$(printf %064d 0)"

# options
refuse "uplink foo: 'foo' is no uplink: write user, tap:INTERFACE or bridge:BRIDGE" net create lab --uplink foo
refuse "'switch:x' is no uplink: write user, tap:" net create lab --uplink switch:x
refuse "'averyverylongname' is no name of an interface: 1 to 15 characters" net create lab --uplink tap:averyverylongname
refuse "no uplink (mtu=5 is no length" net create lab --uplink tap:up0,mtu=5
refuse "limit-in 5: is no rate a second: write 100Mbit" net create lab --limit-in 5
refuse "did you mean --limit-in" net create lab --limt-in 5
refuse "'averyverylongname' is no name of an interface: 1 to 15 characters" run --kernel kernel --net tap:averyverylongname
refuse "for a bridge of the host: 'ospite net create NAME --uplink bridge:br0', then --net switch:NAME" run --kernel kernel --net bridge:br0
refuse "net foo: is no network: write user, tap:INTERFACE, switch:NETWORK or none" run --kernel kernel --net foo
refuse "port 80: is no forward: write HOST:GUEST" run --kernel kernel --port 80
refuse "port forwards through a user network: add --net user" run --kernel kernel --net none --port 8080:80

# what goes
says '^lab$' net create lab --limit-in 40Mbit
refuse "there is a network 'lab' already: choose another name, or remove it with 'ospite net rm lab'" net create lab
says '^lab  *no  *0  *-  *no  *no  *5000000' net ls
says 'its switch does not run, uplink none, false sources refused' net show lab
says '"network": "lab"' net show lab --json
refuse "network lab: its switch does not run: it does while a machine is on it, and after 'ospite net start lab'" net capture lab out.pcap
refuse "its switch does not run" net capture lab out.pcap --port 1
[ -e out.pcap ] && fail "a capture of nothing"
if command -v python3 >/dev/null; then
	"$ospite" net ls --json | python3 -c 'import json, sys; n, = json.load(sys.stdin); sys.exit(n["network"] != "lab" or n["running"] or n["members"])' || fail "ls --json"
fi
says '^kept$' net create kept --keep
says '^kept$' net start kept
says 'its switch runs' net show kept
refuse "no port 'nobody' on this network; 'ospite net show' lists them" net capture kept out.pcap --port nobody
refuse "cannot write /nonexistent/x: No such file" net capture kept /nonexistent/x --count 1
says '^kept$' net stop kept
says '^lab$' net rm lab
says '^other$' net create other

"$ospite" completion man | grep -q 'net capture NAME FILE' || fail "the manual page does not explain the verbs of net"
says '^kept$' net rm kept
says '^other$' net rm other

# rights; as somebody else than root
if [ "$(id -u)" = 0 ]; then
	mkdir -p "$work/root/networks" && chmod -R 777 "$work"
	as="setpriv --reuid=65534 --regid=65534 --clear-groups"
	$as test -x "$ospite" || { echo "SKIPPED: rights ($ospite is not for others)"; as=none; }
fi
if [ "$as" != none ] && [ "$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)" -gt 80 ]; then
	refuse "port: port 80 needs privileges; choose one from 1024 on, or as root: sysctl net.ipv4.ip_unprivileged_port_start=80" run --kernel kernel --port 80:80
fi
if [ "$as" != none ]; then
	# by /dev/net/tun's rights, or the interface's
	refuse "as root: \\(chmod 666 /dev/net/tun\\|ip tuntap add dev ospite-t0 mode tap user [0-9]* vnet_hdr; ip link set ospite-t0 up\\|modprobe tun\\)" run --kernel kernel --net tap:ospite-t0
	$as "$ospite" net create bridged --uplink bridge:ospite-b0 --quiet || fail "net create"
	refuse "network bridged: uplink bridge:ospite-b0: .*as root: " net start bridged
	refuse "net switch:bridged: network bridged: uplink bridge:ospite-b0: .*as root: " run --kernel kernel --net switch:bridged
	$as "$ospite" net rm bridged --quiet || fail "net rm"
fi
as=
if command -v python3 >/dev/null; then
	python3 -c 'import socket, time
s = socket.create_server(("127.0.0.1", 0)); open("port", "w").write(str(s.getsockname()[1])); open("ready", "w"); time.sleep(600)' &
	holder=$!
	n=0
	until [ -e ready ] || [ $n = 600 ]; do n=$((n + 1)); sleep 0.1; done
	refuse "port: port $(cat port) of 127.0.0.1 is in use already, by another program or machine; choose another one" run --kernel kernel --port "$(cat port):80"
fi
[ "$(ls root/networks)" ] && fail "left behind: $(ls root/networks)"
echo "$failed failed"
[ $failed = 0 ]
