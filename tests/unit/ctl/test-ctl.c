/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket, from a client's side, on a machine whose engine spins. Wrong, huge and slow input; every client
 * that misbehaves is tried beside one that is served meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "ctl/client.h"
#include "ctl/private.h"

static enum cpu_stop spin_run(struct cpu *c)
{
	while (!(atomic_load(&c->attention) & ATT_CALLER)) {
		if (atomic_fetch_and(&c->attention, ~(uint32_t)ATT_NMI) & ATT_NMI)
			c->s.gpr[RBX]++;
		usleep(200);
	}
	return c->stop = STOP_KICK;
}
static int none(struct err *e)
{
	return 0;
}
static int attach(struct machine *m, struct err *e)
{
	return 0;
}
static void detach(struct machine *m)
{
}
static int create(struct cpu *c, struct err *e)
{
	return 0;
}
static void nothing(struct cpu *c)
{
}

static const struct engine_ops spin = {
	.name = "spin", .probe = none, .vm_attach = attach, .vm_detach = detach, .cpu_create = create, .cpu_destroy = nothing,
	.run = spin_run, .kick = nothing, .state_get = nothing, .state_set = nothing, .debug_set = nothing,
};
static const struct vm_config config = { .name = "tested", .cpus = 2, .memory = 1 << 20, .cpu_model = "v2",
					 .engine_ops = &spin };

struct lab {
	struct vm *vm;
	struct ctl *ctl;
	char folder[32];
	int fd;
};

static int lab_open(void **state)
{
	struct lab *l = calloc(1, sizeof(*l));
	struct ctl_config c = { .version = "1.2.3", .path = "control" };
	struct err e = { 0 };

	strcpy(l->folder, "/tmp/ospite-ctl-XXXXXX");
	assert_non_null(mkdtemp(l->folder));
	l->fd = open(l->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(vm_create(&l->vm, &config, &e), 0);
	c.vm = l->vm;
	c.folder = l->fd;
	l->ctl = ctl_create(&c, &e);
	assert_non_null(l->ctl);
	assert_int_equal(ctl_start(l->ctl, &e), 0);
	assert_int_equal(vm_start(l->vm, &e), 0);
	*state = l;
	return 0;
}

static int lab_close(void **state)
{
	struct lab *l = *state;

	ctl_destroy(l->ctl);
	vm_destroy(l->vm);
	close(l->fd);
	assert_int_equal(rmdir(l->folder), 0); /* the socket is gone */
	free(l);
	return 0;
}

static int client(struct lab *l)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/control", l->folder);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

/* One message; NULL at the end of the connection. */
static json_t *receive(int fd)
{
	static char line[1 << 20];
	size_t n = 0;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (n < sizeof(line) - 1) {
		assert_int_equal(poll(&p, 1, 10000), 1);
		ssize_t got = recv(fd, line + n, sizeof(line) - 1 - n, MSG_PEEK);
		char *end = got > 0 ? memchr(line + n, '\n', (size_t)got) : NULL;

		if (got <= 0)
			return NULL;
		got = end ? end + 1 - (line + n) : got;
		assert_int_equal(recv(fd, line + n, (size_t)got, 0), got);
		n += (size_t)got;
		if (end)
			break;
	}
	return json_loadb(line, n, 0, NULL);
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next two messages have `a` and `b` in them, in whatever order: an event is older or younger than the answer. */
static void expect_both(int fd, const char *a, const char *b)
{
	for (unsigned i = 0; i < 2; i++) {
		json_t *m = receive(fd);
		char *got = m ? json_dumps(m, JSON_COMPACT) : strdup("the end");
		const char **which = a && strstr(got, a) ? &a : &b;

		if (!*which || !strstr(got, *which))
			fail_msg("expected %s or %s in %s", a ? a : "no more", b ? b : "no more", got);
		*which = NULL;
		free(got);
		json_decref(m);
	}
}

/* The next message has `text` in it, as printed without blanks. */
static void expect(int fd, const char *text)
{
	json_t *m = receive(fd);
	char *got = m ? json_dumps(m, JSON_COMPACT) : strdup("the end");

	if (!strstr(got, text))
		fail_msg("expected %s in %s", text, got);
	free(got);
	json_decref(m);
}

static int greeted(struct lab *l)
{
	int fd = client(l);

	expect(fd, "{\"QMP\":{\"version\":{\"qemu\":{\"major\":1,\"minor\":2,\"micro\":3}");
	say(fd, "{\"execute\":\"qmp_capabilities\"}");
	expect(fd, "{\"return\":{}}");
	return fd;
}

static void test_protocol(void **state)
{
	struct lab *l = *state;
	int fd = client(l), i;
	struct stat st;

	assert_int_equal(fstatat(l->fd, "control", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	expect(fd, "\"capabilities\":[]");
	say(fd, "{\"execute\":\"query-status\"}");
	expect(fd, "CommandNotFound");
	say(fd, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}");
	expect(fd, "GenericError");
	say(fd, "{\"execute\":\"qmp_capabilities\",\"id\":{\"a\":[1]}}");
	expect(fd, "{\"return\":{},\"id\":{\"a\":[1]}}");
	say(fd, "{\"execute\":\"qmp_capabilities\"}");
	expect(fd, "negotiation is over");
	/* byte by byte, two without anything between them, brackets and quotes in strings */
	for (const char *p = "{\"execute\":\"query-name\",\"id\":\"}]\\\"{\"}{\"execute\" : \"query-kvm\"}\n"; *p; p++)
		assert_int_equal(write(fd, p, 1), 1);
	expect(fd, "{\"return\":{\"name\":\"tested\"},\"id\":\"}]\\\"{\"}");
	expect(fd, "\"enabled\":false");
	for (i = 0; i < 3; i++) {
		static const char *const wrong[][2] = {
			{ "{\"execute\":\"nonsense\",\"id\":7}", "CommandNotFound" },
			{ "{\"execute\":\"ospite-save\"}", "needs the argument 'path' (str)" },
			{ "{\"execute\":\"ospite-save\",\"arguments\":{\"path\":1}}", "must be of type str" },
			{ "{\"execute\":\"stop\",\"arguments\":{\"x\":1}}", "no argument 'x'" },
			{ "{\"execute\":\"stop\",\"arguments\":[]}", "must be an object" },
			{ "{\"execute\":1}", "'execute', a string" },
			{ "{\"execute\":\"stop\",\"exec\":1}", "no member 'exec'" },
			{ "[1,2]", "must be an object" },
			{ "{\"execute\":\"stop\" \"id\"}", "not JSON" },
			{ "stop please\n", "not JSON" },
			{ "{\"execute\":\"a\\u0000b\"}", "not JSON" },
			{ "{\"execute\":\"\xff\"}", "not JSON" },
			{ "{\"execute\":\"system_powerdown\"}", "no power button" },
			{ "{\"execute\":\"ospite-change-engine\",\"arguments\":{\"engine\":\"warp\"}}", "no engine" },
			{ "{\"execute\":\"ospite-suspend\"}", "no place to be saved to" },
		};

		for (unsigned w = 0; w < ARRAY_LEN(wrong); w++) {
			say(fd, wrong[w][0]);
			expect(fd, wrong[w][1]);
		}
	}
	close(fd);
}

static void test_life(void **state)
{
	struct lab *l = *state;
	int fd = greeted(l), watcher = greeted(l);
	json_t *reply, *cpu;
	size_t i;

	say(fd, "{\"execute\":\"stop\"}{\"execute\":\"query-status\"}{\"execute\":\"stop\"}{\"execute\":\"cont\"}");
	expect(fd, "\"event\":\"STOP\"");
	expect(fd, "{\"return\":{}}");
	expect(fd, "\"status\":\"paused\"");
	expect(fd, "{\"return\":{}}"); /* paused already: nothing happens */
	expect(fd, "\"event\":\"RESUME\"");
	expect(fd, "{\"return\":{}}");
	say(fd, "{\"execute\":\"ospite-query-registers\"}"); /* the machine stands still for it, and goes on */
	expect(fd, "\"event\":\"STOP\"");
	expect(fd, "\"event\":\"RESUME\"");
	expect(fd, "\"rflags\":\"0x2\"");
	say(fd, "{\"execute\":\"system_reset\"}");
	expect_both(fd, "{\"return\":{}}", "\"data\":{\"guest\":false,\"reason\":\"host-qmp-system-reset\"}");
	vm_request_reset(l->vm);
	expect(fd, "\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}");
	say(fd, "{\"execute\":\"query-cpus-fast\"}");
	reply = receive(fd);
	json_array_foreach(json_object_get(reply, "return"), i, cpu) {
		const char *now = json_string_value(json_object_get(cpu, "ospite-state"));

		assert_int_equal(json_integer_value(json_object_get(cpu, "cpu-index")), i);
		assert_true(now && (!strcmp(now, "ready") || !strcmp(now, "running") || !strcmp(now, "halted")));
	}
	assert_int_equal(i, 2);
	json_decref(reply);
	say(fd, "{\"execute\":\"inject-nmi\"}{\"execute\":\"ospite-query-machine\"}");
	expect(fd, "{\"return\":{}}");
	expect(fd, "\"engine\":\"spin\"");
	say(fd, "{\"execute\":\"quit\",\"id\":5}");
	expect_both(fd, "{\"return\":{},\"id\":5}", "\"data\":{\"guest\":false,\"reason\":\"host-qmp-quit\"}");
	assert_int_equal(vm_wait(l->vm), VM_END_USER);
	for (i = 0; i < 2; i++)
		assert_true(l->vm->vcpus[i].cpu.s.gpr[RBX] <= 1);
	say(fd, "{\"execute\":\"cont\"}{\"execute\":\"system_reset\"}{\"execute\":\"query-status\"}");
	expect(fd, "has ended");
	expect(fd, "has ended");
	expect(fd, "\"status\":\"shutdown\"");
	expect(watcher, "STOP");
	expect(watcher, "RESUME");
	expect(watcher, "STOP");
	expect(watcher, "RESUME");
	expect(watcher, "RESET");
	expect(watcher, "RESET");
	expect(watcher, "SHUTDOWN");
	close(fd);
	close(watcher);
}

/* Events still reach whoever listens when the machine's process ends. */
static void test_last_words(void **state)
{
	struct lab *l = *state;
	int fd = greeted(l);

	vm_request_end(l->vm, VM_END_CRASH, 0, "triple fault");
	vm_wait(l->vm);
	ctl_destroy(l->ctl);
	l->ctl = NULL;
	expect(fd, "{\"event\":\"GUEST_PANICKED\"");
	expect(fd, "\"reason\":\"guest-panic\"");
	assert_null(receive(fd));
	close(fd);
}

static void test_every_command_is_documented(void **state)
{
	struct lab *l = *state;
	int fd = greeted(l);
	json_t *reply, *m;
	unsigned commands = 0, events = 0;
	size_t i;

	say(fd, "{\"execute\":\"query-qmp-schema\"}");
	reply = receive(fd);
	json_array_foreach(json_object_get(reply, "return"), i, m) {
		const char *meta = json_string_value(json_object_get(m, "meta-type"));

		commands += !strcmp(meta, "command");
		events += !strcmp(meta, "event");
	}
	json_decref(reply);
	for (const struct ctl_command *c = ctl_commands; c->name; c++, commands--)
		assert_true(ctl_command_find(c->name) == c && c->help[0]);
	for (const struct ctl_event_def *d = ctl_event_defs; d->name; d++)
		events--;
	assert_int_equal(commands, 0);
	assert_int_equal(events, 0);
	close(fd);
}

/* A machine need not have a PC around it; its commands say so. */
static void test_without_devices(void **state)
{
	static const char *const refused[] = {
		"{\"execute\":\"set_link\",\"arguments\":{\"name\":\"net0\",\"up\":true}}",
		"{\"execute\":\"balloon\",\"arguments\":{\"value\":1048576}}",
		"{\"execute\":\"query-balloon\"}",
		"{\"execute\":\"eject\",\"arguments\":{\"id\":\"cd0\"}}",
		"{\"execute\":\"block_resize\",\"arguments\":{\"id\":\"disk0\",\"size\":512}}",
		"{\"execute\":\"system_powerdown\"}",
		"{\"execute\":\"screendump\",\"arguments\":{\"filename\":\"/nowhere/x.png\"}}",
		"{\"execute\":\"ospite-screen-text\"}",
		"{\"execute\":\"send-key\",\"arguments\":{\"keys\":[{\"type\":\"qcode\",\"data\":\"a\"}]}}",
	};
	static const char *const empty[] = { "query-block", "query-blockstats", "ospite-query-networks" };
	struct lab *l = *state;
	int fd = greeted(l);

	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		json_t *reply;

		say(fd, refused[i]);
		reply = receive(fd);
		assert_non_null(json_object_get(reply, "error"));
		json_decref(reply);
	}
	for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
		char text[80];

		snprintf(text, sizeof(text), "{\"execute\":\"%s\"}", empty[i]);
		say(fd, text);
		expect(fd, "{\"return\":[]}");
	}
	close(fd);
}

static void served(int fd)
{
	say(fd, "{\"execute\":\"query-name\"}");
	expect(fd, "{\"return\":{\"name\":\"tested\"}}");
}

static void test_bad_clients(void **state)
{
	struct lab *l = *state;
	int good = greeted(l), bad, more[CTL_CLIENTS + 8];
	char *big = malloc(CTL_INPUT_MAX + 2);
	ssize_t n;

	/* a request without end */
	bad = greeted(l);
	memset(big, 'x', CTL_INPUT_MAX + 1);
	big[CTL_INPUT_MAX + 1] = 0;
	say(bad, "{\"execute\":\"");
	for (size_t at = 0; at < CTL_INPUT_MAX; at += (size_t)n) {
		n = send(bad, big + at, MIN(CTL_INPUT_MAX - at, (size_t)30000), MSG_NOSIGNAL);
		if (n < 0)
			break;
	}
	expect(bad, "longer than 256 KiB");
	assert_null(receive(bad));
	close(bad);
	served(good);
	/* brackets without end */
	bad = greeted(l);
	memset(big, '[', 1000);
	assert_true(send(bad, big, 1000, MSG_NOSIGNAL) > 0);
	expect(bad, "nested too deeply");
	close(bad);
	served(good);
	/* requests without reading the replies: it is not served beyond a bound, and nobody else notices */
	bad = greeted(l);
	fcntl(bad, F_SETFL, O_NONBLOCK);
	for (unsigned i = 0; i < 20000; i++)
		if (send(bad, "{\"execute\":\"query-qmp-schema\"}", 30, MSG_NOSIGNAL) < 0)
			break;
	assert_int_equal(errno, EAGAIN);
	served(good);
	close(bad);
	/* half a request, and gone */
	bad = greeted(l);
	say(bad, "{\"execute\":");
	close(bad);
	/* too many */
	for (unsigned i = 0; i < ARRAY_LEN(more); i++)
		more[i] = client(l);
	assert_null(receive(more[ARRAY_LEN(more) - 1]));
	served(good);
	for (unsigned i = 0; i < ARRAY_LEN(more); i++)
		close(more[i]);
	served(good);
	close(good);
	free(big);
}

/* A watcher that never reads is dropped once too much waits for it. */
static void test_slow_watcher(void **state)
{
	struct lab *l = *state;
	int slow = greeted(l), good = greeted(l);
	json_t *m;
	unsigned n = 0;
	char *text = malloc(100001);

	memset(text, 'a', 100000);
	text[100000] = 0;
	for (unsigned i = 0; i < 60; i++) {
		ctl_event(l->ctl, "STOP", json_pack("{s:s}", "text", text));
		expect(good, "STOP");
	}
	while ((m = receive(slow))) {
		json_decref(m);
		n++;
	}
	assert_in_range(n, 1, 59);
	served(good);
	close(slow);
	close(good);
	free(text);
}

static void test_socket_file(void **state)
{
	struct lab *l = *state;
	struct ctl_config c = { .vm = l->vm, .version = "1.2.3", .folder = l->fd, .path = "control" };
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct err e = { 0 };
	struct ctl *second;
	char path[64];
	int fd;

	assert_null(ctl_create(&c, &e)); /* somebody listens */
	assert_int_equal(e.code, EADDRINUSE);
	c.path = "file";
	fd = openat(l->fd, "file", O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_null(ctl_create(&c, &e)); /* not ours to remove */
	assert_int_equal(e.code, EEXIST);
	assert_int_equal(unlinkat(l->fd, "file", 0), 0);
	c.path = "dead";
	snprintf(path, sizeof(path), "%s/dead", l->folder);
	strcpy(at.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	close(fd);
	second = ctl_create(&c, &e); /* left by one that died */
	assert_non_null(second);
	ctl_destroy(second);
	assert_int_equal(access(path, F_OK), -1);
}

/* Nobody serves this socket, and it has no room for more who wait: who comes is told so in time. */
static void test_nobody_home(void **state)
{
	struct lab *l = *state;
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct ctl_peer *p = NULL;
	struct err e = { 0 };

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/deaf", l->folder);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 1), 0);
	alarm(60);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(ctl_connect(&p, l->fd, "deaf", 20, &e), -ETIMEDOUT);
		assert_string_equal(e.text, "the machine does not answer");
	}
	alarm(0);
	close(fd);
	unlink(at.sun_path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_protocol, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_life, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_last_words, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_every_command_is_documented, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_without_devices, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_bad_clients, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_slow_watcher, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_socket_file, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_nobody_home, lab_open, lab_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
