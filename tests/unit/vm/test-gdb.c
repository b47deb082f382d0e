/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The debugger stub with a scripted client. The engine is made for it: each "instruction" adds one to RIP, which goes
 * round from 0x1000 to 0x2000; the one at 0x1800 "writes" to 0x5000.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "vm/gdb.h"

#define WRITER 0x1800
#define WRITTEN 0x5000

static enum cpu_stop toy_stop(struct cpu *c, enum cpu_stop why)
{
	c->stop = why;
	return why;
}

static bool toy_watched(struct cpu *c)
{
	unsigned i;

	for (i = 0; i < c->debug.nwatches; i++)
		if (c->debug.watches[i].on_write && WRITTEN - c->debug.watches[i].at < c->debug.watches[i].len) {
			c->debug.hit = c->debug.watches[i].at;
			return true;
		}
	return false;
}

static enum cpu_stop toy_run(struct cpu *c)
{
	bool first = c->stop == STOP_DEBUG;
	unsigned i, n = 0;

	for (;; first = false) {
		if (atomic_load(&c->attention) & ATT_CALLER)
			return toy_stop(c, STOP_KICK);
		for (i = 0; i < c->debug.nbreaks && !first; i++)
			if (c->debug.breaks[i] == c->s.rip)
				return toy_stop(c, STOP_DEBUG);
		i = c->s.rip == WRITER && toy_watched(c);
		c->s.rip = c->s.rip >= 0x1fff || c->s.rip < 0x1000 ? 0x1000 : c->s.rip + 1;
		if (i || c->debug.step)
			return toy_stop(c, STOP_DEBUG);
		if (++n % 64 == 0)
			usleep(20);
	}
}

static int toy_probe(struct err *e)
{
	return 0;
}
static int toy_attach(struct machine *m, struct err *e)
{
	return 0;
}
static int toy_create(struct cpu *c, struct err *e)
{
	return 0;
}
static void toy_vm(struct machine *m)
{
}
static void toy_cpu(struct cpu *c)
{
}

static const struct engine_ops toy = {
	.name = "toy", .probe = toy_probe, .vm_attach = toy_attach, .vm_detach = toy_vm, .cpu_create = toy_create,
	.cpu_destroy = toy_cpu, .run = toy_run, .kick = toy_cpu, .state_get = toy_cpu, .state_set = toy_cpu,
	.debug_set = toy_cpu,
};

static const struct vm_config config = { .name = "t", .cpus = 2, .memory = 1 << 20, .cpu_model = "v2",
					 .engine_ops = &toy };

static struct vm *make(void)
{
	struct vm *vm = NULL;
	struct err e = { 0 };

	assert_int_equal(vm_create(&vm, &config, &e), 0);
	assert_int_equal(mem_map_ram(vm->machine.mem, 0, 0, 1 << 20, "ram", &e), 0);
	if (gdb_start(vm, "0", &e))
		fail_msg("%s", e.text);
	assert_true(gdb_port(vm) > 0);
	assert_int_equal(vm_start(vm, &e), 0);
	return vm;
}

/* ---- the client */

static int client(struct vm *vm)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)gdb_port(vm)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static int get_byte(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	if (poll(&p, 1, 3000) != 1 || recv(fd, &c, 1, 0) != 1)
		return -1;
	return (unsigned char)c;
}

/* The next packet, checked and acknowledged. */
static const char *get(int fd)
{
	static char text[8192];
	unsigned n = 0, sum = 0, want;
	char digits[3] = { 0 };
	int c;

	do {
		c = get_byte(fd);
		if (c < 0)
			return "(nothing)";
	} while (c != '$');
	while ((c = get_byte(fd)) != '#') {
		if (c < 0 || n == sizeof(text) - 1)
			return "(broken)";
		text[n++] = (char)c;
		sum += (unsigned)c;
	}
	text[n] = 0;
	digits[0] = (char)get_byte(fd);
	digits[1] = (char)get_byte(fd);
	want = (unsigned)strtoul(digits, NULL, 16);
	if ((sum & 0xff) != want)
		return "(bad checksum)";
	assert_int_equal(send(fd, "+", 1, 0), 1);
	return text;
}

static void put_raw(int fd, const char *data, size_t n)
{
	while (n) {
		ssize_t done = send(fd, data, n, MSG_NOSIGNAL);

		if (done <= 0)
			return;
		data += done;
		n -= (size_t)done;
	}
}

static void put(int fd, const char *payload)
{
	char packet[6000];
	unsigned sum = 0, i;

	for (i = 0; payload[i]; i++)
		sum += (unsigned char)payload[i];
	snprintf(packet, sizeof(packet), "$%s#%02x", payload, sum & 0xff);
	put_raw(fd, packet, strlen(packet));
}

static const char *ask(int fd, const char *payload)
{
	put(fd, payload);
	return get(fd);
}

#define ASK(fd, payload, want) assert_string_equal(ask(fd, payload), want)

static uint64_t rip(int fd)
{
	uint64_t v = strtoull(ask(fd, "p10"), NULL, 16);

	return __builtin_bswap64(v);
}

static void test_session(void **state)
{
	struct vm *vm = make();
	int fd = client(vm);
	const char *r;

	ASK(fd, "?", "T05thread:1;");
	r = ask(fd, "qSupported:multiprocess+;swbreak+;hwbreak+");
	assert_non_null(strstr(r, "PacketSize=1000;"));
	ASK(fd, "vMustReplyEmpty", "");
	ASK(fd, "qC", "QC1");
	ASK(fd, "qfThreadInfo", "m1,2");
	ASK(fd, "qsThreadInfo", "l");
	ASK(fd, "T2", "OK");
	ASK(fd, "T3", "E16");
	ASK(fd, "Hg2", "OK");
	assert_int_equal(rip(fd), 0xfff0);
	ASK(fd, "Hg9", "E16");
	ASK(fd, "Hg-1", "OK");
	ASK(fd, "Hg1", "OK");
	/* registers */
	ASK(fd, "P0=8877665544332211", "OK");
	ASK(fd, "p0", "8877665544332211");
	assert_true(vm->vcpus[0].cpu.s.gpr[RAX] == 0x1122334455667788);
	ASK(fd, "P10=0010000000000000", "OK");
	assert_int_equal(rip(fd), 0x1000);
	ASK(fd, "P10=0000000000000080", "E16"); /* not canonical */
	ASK(fd, "P12=08000000", "E16");         /* CS cannot be written */
	ASK(fd, "p3e7", "E16");
	ASK(fd, "p29", "00000000000000000000000000000000"); /* xmm1 */
	r = ask(fd, "g");
	assert_int_equal(strlen(r), 2 * (17 * 8 + 7 * 4 + 8 * 10 + 8 * 4 + 16 * 16 + 4 + 8 * 8));
	assert_memory_equal(r, "8877665544332211", 16);
	/* memory */
	ASK(fd, "M5ffe,4:11223344", "OK");
	ASK(fd, "m5ffe,4", "11223344");
	assert_int_equal(mem_read(vm->machine.mem, 0x6000, 2), 0x4433);
	ASK(fd, "mffffe,4", "0000"); /* as far as there is */
	ASK(fd, "m100000,4", "E0e");
	ASK(fd, "mfffffffffffffffe,8", "E0e");
	ASK(fd, "M100000,1:00", "E0e");
	/* a breakpoint, stepping, a watchpoint */
	ASK(fd, "Z0,1234,1", "OK");
	ASK(fd, "Z0,1234,1", "OK");
	ASK(fd, "vCont;c:1", "T05thread:1;swbreak:;");
	assert_int_equal(rip(fd), 0x1234);
	ASK(fd, "z0,1234,1", "OK");
	ASK(fd, "z0,1234,1", "OK");
	ASK(fd, "vCont;s:1", "T05thread:1;");
	assert_int_equal(rip(fd), 0x1235);
	ASK(fd, "s", "T05thread:1;");
	assert_int_equal(rip(fd), 0x1236);
	ASK(fd, "Z2,5000,4", "OK");
	ASK(fd, "vCont;c:1", "T05thread:1;watch:5000;");
	assert_int_equal(rip(fd), WRITER + 1);
	ASK(fd, "z2,5000,4", "OK");
	/* the other CPU, at its own time */
	ASK(fd, "Hc2", "OK");
	ASK(fd, "Hg2", "OK");
	ASK(fd, "Z1,1700,1", "OK");
	ASK(fd, "vCont;c:2", "T05thread:2;hwbreak:;");
	assert_int_equal(rip(fd), 0x1700);
	ASK(fd, "z1,1700,1", "OK");
	/* Ctrl-C */
	put(fd, "vCont;c");
	for (int i = 0; i < 1000 && vm_state_now(vm) != VM_RUNNING; i++)
		usleep(1000);
	assert_int_equal(vm_state_now(vm), VM_RUNNING);
	put_raw(fd, "\3", 1);
	assert_string_equal(get(fd), "T02thread:2;");
	ASK(fd, "D", "OK");
	assert_int_equal(get_byte(fd), -1);
	close(fd);
	/* and again; left without a word the machine goes on */
	fd = client(vm);
	ASK(fd, "?", "T05thread:1;");
	ASK(fd, "Z0,1100,1", "OK");
	close(fd);
	for (int i = 0; i < 1000 && (vm_state_now(vm) != VM_RUNNING || vm->vcpus[0].cpu.debug.nbreaks); i++)
		usleep(1000);
	assert_int_equal(vm_state_now(vm), VM_RUNNING);
	assert_int_equal(vm->vcpus[0].cpu.debug.nbreaks, 0);
	vm_destroy(vm);
}

/* Both CPUs run into a point: two stops are reported, none is lost. */
static void test_two(void **state)
{
	struct vm *vm = make();
	int fd = client(vm), i;
	unsigned seen[2] = { 0 };

	ASK(fd, "qSupported:swbreak+", "PacketSize=1000;qXfer:features:read+;vContSupported+;QStartNoAckMode+;"
				       "swbreak+;hwbreak+");
	ASK(fd, "QStartNoAckMode", "OK");
	ASK(fd, "Z0,1100,1", "OK");
	for (i = 0; i < 3000 && (seen[0] < 5 || seen[1] < 5); i++) {
		const char *r = ask(fd, "c");

		if (!strcmp(r, "T05thread:1;swbreak:;"))
			seen[0]++;
		else if (!strcmp(r, "T05thread:2;swbreak:;"))
			seen[1]++;
		else
			fail_msg("%s", r);
		assert_int_equal(rip(fd), 0x1100);
	}
	assert_true(seen[0] >= 5 && seen[1] >= 5);
	put(fd, "k");
	assert_int_equal(vm_wait(vm), VM_END_USER);
	close(fd);
	vm_destroy(vm);
}

static void test_description(void **state)
{
	struct vm *vm = make();
	int fd = client(vm);
	char text[12000] = "", cmd[64];
	unsigned len = 0, registers = 0;
	const char *r, *p;

	do {
		snprintf(cmd, sizeof(cmd), "qXfer:features:read:target.xml:%x,ffb", len);
		r = ask(fd, cmd);
		assert_true(*r == 'm' || *r == 'l');
		assert_true(len + strlen(r + 1) < sizeof(text));
		strcpy(text + len, r + 1);
		len += (unsigned)strlen(r + 1);
	} while (*r == 'm');
	for (p = text; (p = strstr(p, "<reg ")); p++)
		registers++;
	assert_int_equal(registers, 16 + 1 + 7 + 8 + 8 + 17 + 2 + 6);
	assert_non_null(strstr(text, "<reg name=\"r15\" bitsize=\"64\""));
	assert_non_null(strstr(text, "<reg name=\"cr3\""));
	assert_non_null(strstr(text, "</feature></target>"));
	ASK(fd, "qXfer:features:read:other.xml:0,100", "E00");
	ASK(fd, "qXfer:features:read:target.xml:fffffffffffffff0,100", "l");
	ASK(fd, "qXfer:features:read:target.xml:0,ffffffffffffffffff", "E16");
	close(fd);
	vm_destroy(vm);
}

/* Nothing that can be sent breaks it. */
static void test_hostile(void **state)
{
	struct engine_ops few;
	const struct engine_ops *whole;
	static const char *const odd[] = {
		"", "g1", "G", "G00", "p", "pzz", "P", "P0", "P0=", "P0=1", "m", "m,", "m0", "m0,", "m0,fffffffffffffffff",
		"m0,1000", "M0,1", "M0,1:", "M0,2:11", "M0,ffffffffffffffff:00", "Z", "Z0", "Z0,", "Z0,1", "Z9,1,1",
		"Z2,ffffffffffffffff,8", "Z2,0,0", "Z2,0,ffffffff", "z7,0,0", "H", "Hx1", "Hg", "Hgffffffffffffffffff", "T",
		"vCont", "vCont;", "vCont;x", "vCont;s:9", "vCont;C", "vCont;c:", "S", "C", "czz", "c8000000000000000", "qRcmd,",
		"qRcmd,7", "qRcmd,ffff", "qThreadExtraInfo,", "qThreadExtraInfo,99", "qXfer:features:read:", "\x7f\x80\xff",
		"X0,1:}", "!", "bc", "i", "R00", "vFile:open",
	};
	struct vm *vm = make();
	char *junk = malloc(100000);
	unsigned i, seed = 7;
	int fd = client(vm), other;

	for (i = 0; i < ARRAY_LEN(odd); i++) {
		const char *r = ask(fd, odd[i]);

		if (*r && *r != 'E' && strcmp(r, "OK") && strncmp(odd[i], "qRcmd", 5))
			fail_msg("\"%s\" gives \"%s\"", odd[i], r);
	}
	/* a second client is turned away */
	other = client(vm);
	assert_int_equal(get_byte(other), -1);
	close(other);
	/* a checksum that is wrong, then right */
	put_raw(fd, "$?#00", 5);
	assert_int_equal(get_byte(fd), '-');
	ASK(fd, "?", "T05thread:1;");
	/* too long, and noise */
	memset(junk, 'm', 100000);
	junk[0] = '$';
	put_raw(fd, junk, 9000);
	put_raw(fd, "#00", 3);
	ASK(fd, "qC", "QC1");
	for (i = 0; i < 100000; i++) {
		seed = seed * 1103515245 + 12345;
		junk[i] = "$#?gmMpPZz0123456789abcdef,:;=qHTX}*\3+-"[(seed >> 16) % 39];
	}
	put_raw(fd, junk, 100000);
	close(fd);
	fd = client(vm);
	/* an engine with the processor's debug registers: four, of aligned bytes, and one that is taken away makes room */
	few = *vm->machine.engine;
	few.debug_points = 4;
	whole = vm->machine.engine;
	vm->machine.engine = &few;
	ASK(fd, "Z0,9000,1", "OK");
	ASK(fd, "Z2,a001,2", "E1c");
	ASK(fd, "Z2,a000,10", "E1c");
	ASK(fd, "Z2,a000,8", "OK");
	ASK(fd, "Z1,9004,1", "OK");
	ASK(fd, "Z3,a010,4", "OK");
	ASK(fd, "Z0,9008,1", "E1c");
	ASK(fd, "z2,a000,8", "OK");
	ASK(fd, "Z0,9008,1", "OK");
	ASK(fd, "z0,9000,1", "OK");
	ASK(fd, "z1,9004,1", "OK");
	ASK(fd, "z3,a010,4", "OK");
	ASK(fd, "z0,9008,1", "OK");
	vm->machine.engine = whole;
	/* as many points as there is room for */
	for (i = 0; i < DEBUG_POINTS + 1; i++) {
		char cmd[32];

		snprintf(cmd, sizeof(cmd), "Z0,%x,1", 0x9000 + i);
		ASK(fd, cmd, i < DEBUG_POINTS ? "OK" : "E1c");
	}
	/* one that asks and never reads */
	for (i = 0; i < 20000; i++)
		put_raw(fd, "$g#67", 5);
	close(fd);
	fd = client(vm);
	put_raw(fd, "+", 1);
	ASK(fd, "qC", "QC1");
	close(fd);
	free(junk);
	vm_destroy(vm);
}

static uint64_t cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Who calls while there are no descriptors left waits, and does not keep the event loop busy. */
static void test_no_descriptors(void **state)
{
	struct vm *vm = make();
	struct rlimit was, few;
	struct err e;
	uint64_t used;
	int fd, lowest;

	assert_int_equal(vm_pause(vm, &e), 0);
	getrlimit(RLIMIT_NOFILE, &was);
	lowest = dup(0);
	close(lowest);
	few = (struct rlimit){ (rlim_t)lowest + 1, was.rlim_max };
	setrlimit(RLIMIT_NOFILE, &few);
	used = cpu_ms();
	fd = client(vm); /* takes the last one */
	usleep(500000);
	used = cpu_ms() - used;
	setrlimit(RLIMIT_NOFILE, &was);
	assert_in_range(used, 0, 100);
	put_raw(fd, "+", 1);
	ASK(fd, "qC", "QC1");
	close(fd);
	vm_destroy(vm);
}

static void test_addresses(void **state)
{
	static const char *const wrong[] = { "", ":", "x", "70000", "12x", "host:12", "127.0.0.1:", "[::1:5",
					     "1.2.3.4.5:80", "-1" };
	struct vm *vm = NULL;
	struct err e;
	unsigned i;

	assert_int_equal(vm_create(&vm, &config, &e), 0);
	for (i = 0; i < ARRAY_LEN(wrong); i++) {
		if (gdb_start(vm, wrong[i], &e) != -EINVAL)
			fail_msg("\"%s\" is accepted", wrong[i]);
		assert_int_equal(gdb_port(vm), 0);
	}
	assert_int_equal(gdb_start(vm, "127.0.0.1:0", &e), 0);
	vm_destroy(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_session),
		cmocka_unit_test(test_two),
		cmocka_unit_test(test_description),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
