/* SPDX-License-Identifier: Apache-2.0 */
/* The switch with its sockets: members that behave, stall, lie and die; questions; captures; the end with the last member. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "backend/net-client.h"
#include "base/base.h"
#include "base/err.h"
#include "base/evloop.h"
#include "net/serve.h"

struct rig {
	char path[64];
	int folder;
	struct evloop *loop;
	struct serve *serve;
};

static void rig_start(struct rig *r, const struct serve_config *c)
{
	struct err e = { 0 };
	int listener;

	strcpy(r->path, "/tmp/ospite-serve-XXXXXX");
	assert_non_null(mkdtemp(r->path));
	r->folder = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r->loop = evloop_create(&e);
	listener = serve_listen(r->folder, &e);
	assert_true(listener >= 0);
	r->serve = serve_create(c, r->loop, listener, &e);
	assert_non_null(r->serve);
	assert_int_equal(evloop_start(r->loop, &e), 0);
}

static void rig_stop(struct rig *r)
{
	evloop_stop(r->loop);
	serve_destroy(r->serve);
	evloop_destroy(r->loop);
	assert_int_equal(unlinkat(r->folder, NET_CLIENT_SOCKET, 0), 0);
	close(r->folder);
	rmdir(r->path);
}

static struct net_hello hello(uint8_t last)
{
	struct net_hello h = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_MEMBER, .mac = { 2, 0, 0, 0, 0, last }, .name = "test" };

	return h;
}

static int join(struct rig *r, uint8_t last)
{
	struct net_hello h = hello(last);
	struct err e = { 0 };
	int fd = net_client_connect(r->folder, &h, &e);

	if (fd < 0)
		fail_msg("%s", e.text);
	return fd;
}

struct message {
	struct net_record record;
	uint8_t frame[65000];
} __attribute__((packed));

static struct message *message(uint8_t to, uint8_t from, size_t len)
{
	struct message *m = calloc(1, sizeof(*m));

	memcpy(m->frame, (uint8_t[]){ 2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5 }, 14);
	if (!to)
		memset(m->frame, 0xff, 6);
	memset(m->frame + 14, from, len - 14);
	return m;
}

static ssize_t hear(int fd, struct message *m)
{
	struct pollfd p = { fd, POLLIN, 0 };

	assert_int_equal(poll(&p, 1, 30000), 1);
	return recv(fd, m, sizeof(*m), 0) - (ssize_t)sizeof(m->record);
}

static void give(int fd, struct message *m, size_t len)
{
	struct pollfd p = { fd, POLLOUT, 0 };

	m->record.len = (uint32_t)len;
	while (send(fd, m, sizeof(m->record) + len, MSG_NOSIGNAL) < 0) {
		assert_int_equal(errno, EAGAIN);
		assert_int_equal(poll(&p, 1, 30000), 1);
	}
}

static bool ended(struct rig *r, int ms)
{
	struct pollfd p = { serve_ended(r->serve), POLLIN, 0 };

	return poll(&p, 1, ms) == 1;
}

static json_t *ask(struct rig *r, const char *question)
{
	struct net_hello h = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_CONTROL };
	static char answer[65536];
	struct err e = { 0 };
	int fd _close_ = net_client_connect(r->folder, &h, &e);
	json_t *o;

	assert_true(fd >= 0);
	assert_true(net_client_ask(fd, question, answer, sizeof(answer), &e) > 0);
	o = json_loads(answer, 0, NULL);
	assert_non_null(o);
	return o;
}

static void test_pass(void **state)
{
	struct serve_config c = { .name = "test" };
	struct rig r;
	struct message *m = message(2, 1, 64000), *got = message(0, 0, 60), *both = message(0, 0, 60);
	int a, b;
	json_t *o;

	rig_start(&r, &c);
	a = join(&r, 1);
	b = join(&r, 2);
	m->record.wire = (struct net_wire){ NET_WIRE_CSUM, NET_GSO_TCP4, 54, 1448, 34, 16 };
	give(a, m, 64000);
	assert_int_equal(hear(b, got), 64000);
	assert_memory_equal(got, m, sizeof(m->record) + 64000);
	/* two frames in a message, and what follows them that is none */
	memcpy(both, m, sizeof(m->record) + 100);
	memcpy((uint8_t *)both + sizeof(m->record) + 100, m, sizeof(m->record) + 200);
	both->record.len = 100;
	m->record.len = 200;
	memcpy((uint8_t *)both + sizeof(m->record) + 100, &m->record, sizeof(m->record));
	assert_int_equal(send(a, both, 2 * sizeof(m->record) + 300, MSG_NOSIGNAL), 2 * sizeof(m->record) + 300);
	assert_int_equal(hear(b, got), sizeof(m->record) + 300);
	assert_memory_equal(got, both, 2 * sizeof(m->record) + 300);
	o = ask(&r, "{\"command\": \"show\"}");
	assert_int_equal(json_integer_value(json_object_get(o, "members")), 2);
	assert_int_equal(json_array_size(json_object_get(o, "ports")), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(o, "ports"), 0), "in-bytes")), 64300);
	json_decref(o);
	assert_false(ended(&r, 0));
	close(a);
	close(b);
	assert_true(ended(&r, 30000)); /* with its last member */
	free(both);
	free(m);
	free(got);
	rig_stop(&r);
}

static void test_liars(void **state)
{
	struct serve_config c = { .name = "test", .keep = true };
	struct net_hello h = hello(1);
	struct err e = { 0 };
	struct rig r;
	struct message *m = message(2, 1, 100), *got = message(0, 0, 60);
	struct sockaddr_un at;
	int a, b, many[200];
	char c1 = 0;

	rig_start(&r, &c);
	a = join(&r, 1);
	b = join(&r, 2);
	/* greetings that are none */
	h.magic = 1;
	assert_int_equal(net_client_connect(r.folder, &h, &e), -1);
	assert_non_null(strstr(e.text, "another version"));
	h = hello(1); /* twice */
	assert_int_equal(net_client_connect(r.folder, &h, &e), -1);
	assert_int_equal(e.code, EADDRINUSE);
	h = hello(3);
	memset(h.name, 'x', sizeof(h.name));
	assert_int_equal(net_client_connect(r.folder, &h, &e), -1);
	h = hello(3);
	h.addresses = 200;
	assert_int_equal(net_client_connect(r.folder, &h, &e), -1);
	/* connections that say nothing do not keep others out */
	net_client_address(r.folder, &at);
	for (unsigned i = 0; i < ARRAY_LEN(many); i++) {
		many[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(many[i], (struct sockaddr *)&at, sizeof(at)), 0);
	}
	close(join(&r, 3));
	for (unsigned i = 0; i < ARRAY_LEN(many); i++)
		close(many[i]);
	/* a message too short to be a frame: that member is sent away, the others stay */
	int d = join(&r, 4);
	assert_int_equal(send(d, "x", 1, 0), 1);
	assert_int_equal(hear(d, got), -(ssize_t)sizeof(got->record));
	close(d);
	/* one that promises more than there is: the same */
	d = join(&r, 4);
	m->record.len = 101;
	assert_int_equal(send(d, m, sizeof(m->record) + 100, 0), sizeof(m->record) + 100);
	assert_int_equal(hear(d, got), -(ssize_t)sizeof(got->record));
	close(d);
	give(a, m, 100);
	assert_int_equal(hear(b, got), 100);
	json_decref(ask(&r, "{\"command\": \"show\", \"from\": -5}"));
	json_decref(ask(&r, "]]]"));
	json_decref(ask(&r, "{\"command\": 5}"));
	assert_false(ended(&r, 0));
	json_decref(ask(&r, "{\"command\": \"stop\"}"));
	assert_true(ended(&r, 30000));
	assert_int_equal(read(b, &c1, 0), 0);
	close(a);
	close(b);
	free(m);
	free(got);
	rig_stop(&r);
}

static void test_stalled(void **state)
{
	struct serve_config c = { .name = "test" };
	struct rig r;
	struct message *m = message(0, 1, 60000), *got = message(0, 0, 60);
	int a, b, stalled;
	json_t *o;

	rig_start(&r, &c);
	a = join(&r, 1);
	b = join(&r, 2);
	stalled = join(&r, 3);
	for (unsigned i = 0; i < 500; i++) {
		give(a, m, 60000);
		assert_int_equal(hear(b, got), 60000);
	}
	o = ask(&r, "{\"command\": \"show\"}");
	assert_true(json_integer_value(json_object_get(json_array_get(json_object_get(o, "ports"), 2), "queue-full")) > 0);
	json_decref(o);
	/* it reads again: what was kept comes, in order, and then what is new */
	while (recv(stalled, got, sizeof(*got), 0) > 0)
		;
	m->frame[14] = 0xee;
	give(a, m, 60000);
	do
		assert_int_equal(hear(stalled, got), 60000);
	while (got->frame[14] != 0xee);
	close(stalled);
	close(a);
	close(b);
	assert_true(ended(&r, 30000));
	free(m);
	free(got);
	rig_stop(&r);
}

static void test_capture(void **state)
{
	struct serve_config c = { .name = "test" };
	struct net_hello h = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_CAPTURE, .capture_port = -1 };
	struct rig r;
	struct message *m = message(2, 1, 100);
	struct net_captured *got = calloc(1, 70000);
	struct err e = { 0 };
	int a, b, cap;

	rig_start(&r, &c);
	a = join(&r, 1);
	b = join(&r, 2);
	cap = net_client_connect(r.folder, &h, &e);
	assert_true(cap >= 0);
	give(a, m, 100);
	struct pollfd p = { cap, POLLIN, 0 };
	assert_int_equal(poll(&p, 1, 30000), 1);
	assert_int_equal(recv(cap, got, 70000, 0), (int)sizeof(*got) + 100);
	assert_int_equal(got->length, 100);
	assert_int_equal(got->port, 0);
	assert_memory_equal(got + 1, m->frame, 100);
	close(a);
	close(b);
	assert_true(ended(&r, 30000)); /* a capture is no member */
	close(cap);
	free(m);
	free(got);
	rig_stop(&r);
}

static void test_config(void **state)
{
	static const char *const bad[] = { "", "[]", "{\"uplink\": 5}", "{\"keep\": 1}", "{\"limit-in\": -1}", "{\"typo\": 1}" };
	struct serve_config c = { .keep = true, .sw.isolate = true, .limit_in = 5, .uplink = "user" }, d;
	struct err e = { 0 };
	char *text = serve_config_text(&c);

	assert_int_equal(serve_config_parse(text, &d, &e), 0);
	assert_memory_equal(&c, &d, sizeof(c));
	free(text);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(serve_config_parse(bad[i], &d, &e), -EINVAL);
		assert_non_null(strstr(e.text, "network.json"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pass),	cmocka_unit_test(test_liars),  cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_capture), cmocka_unit_test(test_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
