/* SPDX-License-Identifier: Apache-2.0 */
/* Cards on a switch and on TAP interfaces, through the contract of net.h; links that need rights are in a network namespace of ours. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <net/if.h>
#include <netinet/in.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <unistd.h>
#include <cmocka.h>
#include "backend/net-client.h"
#include "backend/net-tap.h"
#include "backend/net.h"
#include "base/err.h"
#include "base/evloop.h"
#include "net/serve.h"

struct card {
	struct net_link *link;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned frames, drained, downs, ups, disorder;
	uint8_t number; /* of the last short frame, at its byte 20 */
	bool full;
	struct net_wire wire;
	size_t len;
	uint8_t last[NET_WIRE_FRAME];
};

static enum net_result card_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct card *c = opaque;
	size_t at = 0;

	pthread_mutex_lock(&c->lock);
	if (c->full) {
		pthread_mutex_unlock(&c->lock);
		return NET_BUSY;
	}
	for (unsigned i = 0; i < n; i++) {
		memcpy(c->last + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	assert_int_equal(at, len);
	if (len == 60) {
		c->disorder += c->last[20] && c->last[20] != c->number + 1;
		c->number = c->last[20];
	}
	c->len = len;
	c->wire = *w;
	c->frames++;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	return NET_DONE;
}

static void card_drained(void *opaque)
{
	struct card *c = opaque;

	pthread_mutex_lock(&c->lock);
	c->drained++;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void card_link(void *opaque, bool up)
{
	struct card *c = opaque;

	pthread_mutex_lock(&c->lock);
	if (up)
		c->ups++;
	else
		c->downs++;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static const struct net_card_ops card_ops = { .receive = card_receive, .drained = card_drained, .link = card_link };

static void wait_for(struct card *c, const unsigned *what, unsigned n)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 60;
	pthread_mutex_lock(&c->lock);
	while (*what < n)
		assert_int_equal(pthread_cond_timedwait(&c->changed, &c->lock, &until), 0);
	pthread_mutex_unlock(&c->lock);
}

static void card_init(struct card *c, struct net_link *l, unsigned takes)
{
	assert_non_null(l);
	memset(c, 0, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	c->link = l;
	net_attach(l, &card_ops, c);
	net_card_takes(l, takes);
}

/* ---- on a switch */

struct rig {
	char path[64];
	int folder;
	struct evloop *loop;
	struct serve *serve;
};

static void serve_on(struct rig *r)
{
	struct serve_config c = { .name = "test", .keep = true };
	struct err e = { 0 };
	int listener = serve_listen(r->folder, &e);

	assert_true(listener >= 0);
	r->loop = evloop_create(&e);
	r->serve = serve_create(&c, r->loop, listener, &e);
	assert_non_null(r->serve);
	assert_int_equal(evloop_start(r->loop, &e), 0);
}

static void serve_off(struct rig *r)
{
	evloop_stop(r->loop);
	serve_destroy(r->serve);
	evloop_destroy(r->loop);
}

static int join(void *opaque, const char *network, int dialed, struct net_hello *hello, struct err *e)
{
	int fd = net_client_connect(((struct rig *)opaque)->folder, hello, e);

	return fd < 0 ? -e->code : fd;
}

static size_t frame_to(uint8_t *f, const uint8_t *to, const uint8_t *from, size_t len)
{
	memset(f, 0x5a, len);
	memcpy(f, to, 6);
	memcpy(f + 6, from, 6);
	f[12] = 0x88;
	f[13] = 0xb5;
	return len;
}

static void test_switch(void **state)
{
	static uint8_t f[60000];
	static struct card a, b;
	struct net_wire w = { 0 };
	struct net_config c = { .kind = NET_SWITCH, .argument = "test", .machine = "one", .join = join };
	struct rig r = { .path = "/tmp/ospite-links-XXXXXX" };
	struct iovec iov = { f, 0 };
	struct err e = { 0 };
	struct evloop *loop = evloop_create(&e);
	struct net_stats s;
	unsigned sent = 0;

	assert_non_null(mkdtemp(r.path));
	r.folder = open(r.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	c.join_opaque = &r;
	assert_null(net_open(loop, &c, &e)); /* nobody there */
	serve_on(&r);
	card_init(&a, net_open(loop, &c, &e), NET_TAKES_CSUM | NET_TAKES_TSO4);
	assert_null(net_open(loop, &c, &e)); /* the same address again */
	assert_int_equal(e.code, EADDRINUSE);
	c.machine = "two";
	card_init(&b, net_open(loop, &c, &e), 0);
	assert_int_equal(evloop_start(loop, &e), 0);

	iov.iov_len = frame_to(f, net_mac(b.link), net_mac(a.link), 60000);
	assert_int_equal(net_send(a.link, &w, &iov, 1), NET_DONE);
	wait_for(&b, &b.frames, 1);
	assert_int_equal(b.len, 60000);
	assert_memory_equal(b.last, f, 60000);
	/* the other way, unfinished */
	w = (struct net_wire){ .flags = NET_WIRE_CSUM, .csum_start = 34, .csum_offset = 6 };
	iov.iov_len = frame_to(f, net_mac(a.link), net_mac(b.link), 100);
	net_send(b.link, &w, &iov, 1);
	net_sent(b.link);
	wait_for(&a, &a.frames, 1);
	assert_memory_equal(&a.wire, &w, sizeof(w));
	/* a guest without buffers: kept, and in order when it has some */
	b.full = true;
	w = (struct net_wire){ 0 };
	for (uint8_t i = 0; i < 40; i++) {
		iov.iov_len = frame_to(f, net_mac(b.link), net_mac(a.link), 60);
		f[20] = i;
		while (net_send(a.link, &w, &iov, 1) == NET_BUSY)
			wait_for(&a, &a.drained, ++sent);
		if (i % 7 == 0) /* a large one between small ones */
			net_sent(a.link);
		if (i % 10 == 5) {
			iov.iov_len = frame_to(f, net_mac(b.link), net_mac(a.link), 30000);
			while (net_send(a.link, &w, &iov, 1) == NET_BUSY)
				wait_for(&a, &a.drained, ++sent);
		}
	}
	net_sent(a.link);
	pthread_mutex_lock(&b.lock);
	b.full = false;
	pthread_mutex_unlock(&b.lock);
	net_ready(b.link);
	wait_for(&b, &b.frames, 45);
	assert_int_equal(b.last[20], 39);
	assert_int_equal(b.disorder, 0);
	net_get_stats(a.link, &s);
	assert_int_equal(s.tx_frames, 45);
	/* the switch ends, and comes again */
	serve_off(&r);
	wait_for(&a, &a.downs, 1);
	wait_for(&b, &b.downs, 1);
	assert_int_equal(net_send(a.link, &w, &iov, 1), NET_DONE); /* lost */
	net_sent(a.link);
	serve_on(&r);
	wait_for(&a, &a.ups, 1);
	wait_for(&b, &b.ups, 1);
	net_send(a.link, &w, &iov, 1);
	net_sent(a.link);
	wait_for(&b, &b.frames, 46);

	evloop_stop(loop);
	net_close(a.link);
	net_close(b.link);
	evloop_destroy(loop);
	serve_off(&r);
	unlinkat(r.folder, NET_CLIENT_SOCKET, 0);
	close(r.folder);
	rmdir(r.path);
}

struct closing {
	struct evloop *loop;
	struct net_link *link;
	struct card card;
};

static void close_it(void *opaque)
{
	struct closing *c = opaque;

	net_close(c->link);
	pthread_mutex_lock(&c->card.lock);
	c->card.downs = 1;
	pthread_cond_broadcast(&c->card.changed);
	pthread_mutex_unlock(&c->card.lock);
}

/* As the timer of a limit does that is served before what another thread has posted. */
static void ready_behind(void *opaque)
{
	struct closing *c = opaque;

	evloop_post(c->loop, close_it, c);
	net_ready(c->link);
}

/* What a back-end has posted for itself is not done when it has gone. */
static void closed_meanwhile(const char *kind, struct rig *r)
{
	static struct closing c;
	struct net_config config = { .machine = "one", .join = join, .join_opaque = r };
	struct err e = { 0 };

	config.kind = r ? NET_SWITCH : NET_TAP;
	snprintf(config.argument, sizeof(config.argument), "%s", kind);
	c.loop = evloop_create(&e);
	c.link = net_open(c.loop, &config, &e);
	card_init(&c.card, c.link, 0);
	assert_int_equal(evloop_start(c.loop, &e), 0);
	evloop_post(c.loop, ready_behind, &c);
	wait_for(&c.card, &c.card.downs, 1);
	evloop_destroy(c.loop);
}

static void tap_closed_meanwhile(void)
{
	closed_meanwhile("tap7", NULL);
}

static void test_closed_meanwhile(void **state)
{
	struct rig r = { .path = "/tmp/ospite-links-XXXXXX" };

	assert_non_null(mkdtemp(r.path));
	r.folder = open(r.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	serve_on(&r);
	closed_meanwhile("test", &r);
	serve_off(&r);
	unlinkat(r.folder, NET_CLIENT_SOCKET, 0);
	close(r.folder);
	rmdir(r.path);
}

static void test_options(void **state)
{
	static const char *const bad[] = { "switch", "switch:", "tap", "switch:x,vlan=0", "switch:x,vlan=4095", "switch:x,vlan=1x",
					   "switch:x,trunk=", "switch:x,trunk=5-3", "switch:x,trunk=1+", "switch:x,address=1.2.3",
					   "switch:x,limit-in=5", "switch:x,limit-in=nan", "tap:t,vlan=3", "switch:x,typo=1" };
	struct net_config c;
	struct err e = { 0 };

	assert_int_equal(net_config_parse(&c, "switch:lab,vlan=7,trunk=10+20-22,address=10.0.0.2+fd00::2,limit-in=8Mbit,limit-out=2MB", &e), 0);
	assert_string_equal(c.argument, "lab");
	assert_int_equal(c.hello.vlan, 7);
	assert_int_equal(c.hello.vlans[1], 4);
	assert_int_equal(c.hello.vlans[2], 0x70);
	assert_int_equal(c.hello.addresses, 2);
	assert_int_equal(c.hello.v6, 2);
	assert_int_equal(c.limits.in, 1000000);
	assert_int_equal(c.limits.out, 2000000);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (net_config_parse(&c, bad[i], &e) != -EINVAL && e.code != ERANGE)
			fail_msg("%s was taken", bad[i]);
}

/* ---- TAP: in a child, with a network namespace of its own */

static void raise_interface(const char *name)
{
	struct ifreq r = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	strcpy(r.ifr_name, name);
	assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &r), 0);
	assert_true(r.ifr_flags & IFF_UP);
	close(fd);
}

static void tap_both_ways(void)
{
	static uint8_t f[9014]; /* jumbo frames, both ways */
	static struct card a;
	struct net_config c = { .kind = NET_TAP, .argument = "tap7", .machine = "one", .mtu = 9000 };
	struct net_wire w = { 0 };
	struct iovec iov = { f, sizeof(f) };
	struct err e = { 0 };
	struct evloop *loop = evloop_create(&e);
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(0x88b5) };
	struct timeval patience = { 60, 0 };
	uint8_t got[9100];
	int raw;

	card_init(&a, net_open(loop, &c, &e), NET_TAKES_CSUM);
	raise_interface("tap7");
	assert_null(net_open(loop, &c, &e));
	assert_non_null(strstr(e.text, "in use"));
	assert_int_equal(evloop_start(loop, &e), 0);
	raw = socket(AF_PACKET, SOCK_RAW, htons(0x88b5));
	at.sll_ifindex = (int)if_nametoindex("tap7");
	assert_int_equal(bind(raw, (struct sockaddr *)&at, sizeof(at)), 0);
	setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	frame_to(f, (uint8_t[]){ 2, 1, 1, 1, 1, 1 }, net_mac(a.link), sizeof(f));
	assert_int_equal(net_send(a.link, &w, &iov, 1), NET_DONE);
	assert_int_equal(recv(raw, got, sizeof(got), 0), (int)sizeof(f));
	assert_memory_equal(got, f, sizeof(f));
	frame_to(f, net_mac(a.link), (uint8_t[]){ 2, 1, 1, 1, 1, 1 }, sizeof(f));
	/* the kernel has words of its own to say on a new interface: ours is among them */
	for (unsigned n = 1; a.len != sizeof(f) || memcmp(a.last, f, sizeof(f)); n++) {
		assert_int_equal(send(raw, f, sizeof(f), 0), (int)sizeof(f));
		wait_for(&a, &a.frames, n);
	}
	close(raw);
	evloop_stop(loop);
	net_close(a.link);
	evloop_destroy(loop);
	assert_int_equal(if_nametoindex("tap7"), 0); /* it goes with us */
}

static void bridge_refused(void)
{
	struct net_config c = { .kind = NET_TAP, .argument = "nobridge", .machine = "one" };
	struct err e = { 0 };
	struct evloop *loop = evloop_create(&e);

	assert_null(net_bridge_open(loop, &c, &e));
	assert_non_null(strstr(e.text, "ip link add nobridge type bridge"));
	evloop_destroy(loop);
}

static void no_rights(void)
{
	struct net_config c = { .kind = NET_TAP, .argument = "tap8", .machine = "one" };
	struct err e = { 0 };
	struct evloop *loop = evloop_create(&e);

	if (!system("ip tuntap add dev tap8 mode tap user 65534 2>/dev/null && ip link set tap8 up") && !setgid(65534) && !setuid(65534)) {
		c.mtu = 9000;
		assert_null(net_open(loop, &c, &e));
		assert_true(strstr(e.text, "ip link set tap8 mtu 9000") || strstr(e.text, "/dev/net/tun"));
		c.mtu = 0;
	}
	c.argument[3] = '9';
	if (setgid(65534) || setuid(65534))
		return;
	assert_null(net_open(loop, &c, &e));
	assert_true(strstr(e.text, "ip tuntap add dev tap9 mode tap user 65534") || strstr(e.text, "/dev/net/tun"));
	evloop_destroy(loop);
}

static void in_namespace(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		int fd = -1;

		if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
			_exit(77);
		fd = open("/dev/net/tun", O_RDWR);
		if (fd < 0)
			_exit(77);
		close(fd);
		alarm(120);
		fn();
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	/* a failed assertion does not come out of fork as one */
	assert_int_equal(status, 0);
}

static void test_tap(void **state)
{
	in_namespace(tap_both_ways);
}

static void test_tap_closed_meanwhile(void **state)
{
	in_namespace(tap_closed_meanwhile);
}

static void test_tap_bridge(void **state)
{
	in_namespace(bridge_refused);
}

static void test_tap_rights(void **state)
{
	in_namespace(no_rights);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_switch),	    cmocka_unit_test(test_options),    cmocka_unit_test(test_tap),
		cmocka_unit_test(test_tap_bridge), cmocka_unit_test(test_tap_rights), cmocka_unit_test(test_closed_meanwhile),
		cmocka_unit_test(test_tap_closed_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
