#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Templates and thin machines: what shares what, what outlives what, what is refused.
# usage: images.sh OSPITE ASM-FOLDER
# shellcheck source=tests/boot/life-lib.sh
. "$(dirname "$0")/life-lib.sh"
vm=root/machines
same() { [ "$(stat -c %i "$1")" = "$(stat -c %i "$2")" ]; }
content() { # DISK: what a guest sees at 500000
	rm -f flat.raw
	o image convert --quiet "$1" flat.raw && dd if=flat.raw bs=1 skip=500000 count=4 status=none
}

truncate -s 1M d.img
printf base | dd of=d.img bs=1 seek=500000 conv=notrunc status=none
check "no templates" 0 NAME o template list
check "of files" 0 t o template create t ./echo.bin ./d.img --memory 4M --engine interp
check "copied" 0 "" cmp d.img root/templates/t/d.img
check "made twice" 125 "already" o template create t ./echo.bin
check "list" 0 t o template list
check "list --json" 0 '"machines": ""' o template list --json
check "an unknown one" 125 "there is no template 'tt'" o run tt
check "rm an unknown one" 125 "there is no template 'tt'" o template rm tt
check "a template and a file" 125 "exclude each other" o run t ./echo.bin
check "create of it" 0 a o create a t --memory 5M --disk-size 2M
check "its options" 0 "memory: 5M" o config a
check "its template" 0 "template: t" o config a
check "its disk" 0 "format=qcow2,file=disk.qcow2,bus=virtio,backing=d.img,backing-format=raw" o config a
check "its disk's size" 0 '"virtual-size": 2097152' o image info --json $vm/a/disk.qcow2
check "its base" 0 base content $vm/a/disk.qcow2
check "shared with the template" 0 "" same $vm/a/d.img root/templates/t/d.img
check "read-only" 0 444 stat -c %a $vm/a/d.img
check "run of it" 0 vm1 o run t --detach
check "one that cannot start" 125 "more.img" o run t b --detach --disk format=raw,file=more.img,readonly
check "is not there" 1 "" test -e $vm/b
truncate -s 1M more.img
check "a disk more" 0 b o run t b --detach --disk format=raw,file=more.img
check "is kept" 0 "file=$work/more.img" o config b
check "end it" 0 b o rm --force b
check "in use" 125 "a, vm1" o template rm t
# removed while machines are made of it: each has all or is not there, and what is made of it keeps it
for i in 1 2 3 4 5 6; do
	o template create race ./echo.bin ./d.img --memory 4M >/dev/null
	o create r$i race >made 2>&1 &
	o template rm race >gone 2>&1
	gone=$?
	wait $!
	made=$?
	if [ $made = 0 ]; then
		check "all of it" 0 "" cmp $vm/r$i/echo.bin echo.bin
		check "its disk too" 0 "" test -s $vm/r$i/disk.qcow2
		[ $gone != 0 ] || { failed=$((failed + 1)); echo "FAILED: the template of a machine that was being made has gone"; }
		check "rm" 0 r$i o rm r$i
	else
		check "in one line" 0 "ospite: " cat made
		check "nothing half made" 1 "" test -e $vm/r$i
	fi
	[ $gone = 0 ] || check "its template goes too" 0 race o template rm race
done
check "listed so" 0 "a, vm1" o template list
check "remove one" 0 vm1 o rm --force vm1
# thin clones
check "a thin clone" 0 c o clone --thin a c
check "to a name that is taken" 125 "already" o clone --thin a c
check "the old one writes an overlay" 0 "file=disk-1.qcow2,bus=virtio,backing=disk.qcow2,backing-format=qcow2,backing=d.img,backing-format=raw" o config a
check "the new one too" 0 "file=disk-1.qcow2,bus=virtio,backing=disk.qcow2,backing-format=qcow2,backing=d.img,backing-format=raw" o config c
check "they share" 0 "" same $vm/a/disk.qcow2 $vm/c/disk.qcow2
check "but not what is written" 1 "" same $vm/a/disk-1.qcow2 $vm/c/disk-1.qcow2
check "both start" 0 a o start a c
check "not while it runs" 125 "stop it first" o clone --thin a d
check "end them" 0 a o kill a c
check "a full clone of it" 0 d o clone c d
check "shares nothing" 1 "" same $vm/d/disk.qcow2 $vm/c/disk.qcow2
check "its base" 0 base content $vm/d/disk-1.qcow2
# whatever goes, the others have what they need
check "the first one goes" 0 a o rm a
check "the template goes" 125 "c, d" o template rm t
check "the template goes by force" 0 t o template rm --force t
check "the clone starts" 0 c o start c
check "and ends" 0 c o kill c
check "and has its data" 0 base content $vm/c/disk-1.qcow2
# of a machine
check "a template of a machine" 0 u o template create u c
check "a machine of that" 0 e o create e u
check "its base" 0 base content $vm/e/disk-2.qcow2
check "what would be written by both" 0 "" o config c --set "disk=format=raw,file=$work/d.img"
check "no thin clone of that" 125 "written by both" o clone --thin c f
check "no template of that" 125 "written by both" o template create v c
check "nothing of it is left" 0 u o template list --quiet
[ "$(o template list --quiet)" = u ] || { failed=$((failed + 1)); echo "FAILED: templates: $(o template list --quiet)"; }
[ "$(ls -A root/templates)" = u ] || { failed=$((failed + 1)); echo "FAILED: left:"; ls -A root/templates; }
# first-boot data
echo "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPm3E2RSb6fyDIGRIY3VQ8jupVvJLSNbl5uQOg0Flm7s me" >me.pub
printf '#cloud-config\nruncmd: [reboot]\n' >user.yaml
mkdir share
check "with first-boot data" 0 s_1 o run --detach ./echo.bin s_1 --memory 4M --engine interp --ssh-key me.pub --user-data user.yaml --share share:tag
seed=$vm/s_1/seed.iso
check "the machine's name as a host's" 0 "local-hostname: s-1" grep -a local-hostname $seed
check "the key" 0 "IPm3E2RSb6fyDIGRIY3VQ8jupVvJLSNbl5uQOg0Flm7s me" grep -a -A2 public-keys: $seed
check "the user's data" 0 "runcmd: [reboot]" grep -a runcmd $seed
check "shared folders" 0 "  - tag" grep -a -A1 ospite-shares $seed
check "an instance" 0 "instance-id: ospite-" grep -a instance-id $seed
check "the kernel is not told to do without" 1 "" grep -q cloud-init $vm/s_1/vm.yaml
check "a port for ssh" 0 "127.0.0.1:" o info s_1
check "nobody answers there" 125 "does not answer" o ssh --time 0 s_1
check "its end" 0 s_1 o kill s_1
check "ssh to one that is off" 125 "is inactive" o ssh s_1
cp $seed first.iso
check "again" 0 s_1 o start s_1
check "the same instance" 0 "" cmp first.iso $seed
check "its end" 0 s_1 o kill s_1
check "a clone" 0 s2 o clone s_1 s2
check "the clone starts" 0 s2 o start s2
check "with its own name" 0 "local-hostname: s2" grep -a local-hostname $vm/s2/seed.iso
[ "$(grep -a instance-id $seed)" != "$(grep -a instance-id $vm/s2/seed.iso)" ] || { failed=$((failed + 1)); echo "FAILED: a clone is the same instance"; }
check "its end" 0 s2 o kill s2
echo "-----BEGIN OPENSSH PRIVATE KEY-----" >secret
check "a private key" 125 "secret is a private key" o run --detach ./echo.bin --memory 4M --ssh-key secret
printf 'ssh-rsa AAAA x\nrm -rf /\n' >bad.pub
check "no key" 125 "no public key" o run --detach ./echo.bin --memory 4M --ssh-key bad.pub
check "no file" 125 "none.yaml" o run ./echo.bin --memory 4M --user-data none.yaml
check "a bad host name" 125 "is no host name" o create s3 ./echo.bin --hostname 'a b'
check "ssh without first-boot data" 0 s4 o run --detach ./echo.bin s4 --memory 4M
check "is refused" 125 "has no way for ssh" o ssh s4
check "bad verb" 125 "did you mean 'template list'" o template lst
echo "$passed passed, $failed failed"
[ $failed = 0 ]
