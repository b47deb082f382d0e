/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of libneatvnc runs on one thread, in its own loop; another thread only writes to `stop`. The pointer comes as
 * positions; without a tablet in the machine it leaves as motion, which is what a PS/2 mouse can say: the guest's may drift
 * from the client's.
 *
 * libneatvnc 0.5 chooses a client's encoder at its first picture and crashes when that one is not of the size the client was
 * greeted with. So a client's first request is answered with a picture of that size, whatever the screen is now; the new
 * size follows with the next look.
 */
#include <aml.h>
#include <errno.h>
#include <neatvnc.h>
#include <pixman.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/base.h"
#include "base/err.h"
#include "display/vnc.h"
#include "display/layout.h"
#include "display/vnc-auth.h"
#include "display/vnc-gate.h"
#include "display/vnc-libs.h"

#define FRAME_MS 33
#define IDLE_MS 1000 /* without clients: the next one is to be greeted with about the right size */
#define FORMAT_XRGB 0x34325258u /* "XR24": 0x00rrggbb in memory order B, G, R, X */
#define BUTTONS_HELD 7u

/* What a client was greeted with, until its first request. */
struct greeted {
	unsigned width, height;
	bool served;
};

struct vnc {
	struct vnc_config config;
	struct key_layout *layout; /* NULL: American */
	struct aml *loop;
	struct nvnc *server;
	struct vnc_auth *auth;
	struct vnc_gate *gate;
	struct nvnc_display *display;
	struct nvnc_fb_pool *pool;
	struct aml_ticker *ticker, *idle;
	struct aml_handler *stopper;
	pthread_t thread;
	bool started, ticking;
	int stop;
	unsigned clients;
	struct surface now, sent;
	uint32_t size; /* of what was given to libneatvnc last: width, height << 16 */
	int x, y; /* the pointer */
	unsigned buttons;
};

/* ---- pictures */

/* The rows that differ, as one band; false: none. */
static bool changed_rows(const struct vnc *v, unsigned *first, unsigned *last)
{
	size_t line = v->now.width * sizeof(*v->now.pixel);
	bool any = false;

	if (v->now.width != v->sent.width || v->now.height != v->sent.height) {
		*first = 0;
		*last = v->now.height - 1;
		return true;
	}
	for (unsigned y = 0; y < v->now.height; y++) {
		if (!memcmp(v->now.pixel + (size_t)y * v->now.width, v->sent.pixel + (size_t)y * v->now.width, line))
			continue;
		*first = any ? *first : y;
		*last = y;
		any = true;
	}
	return any;
}

/* A surface, cut or padded to a size. */
static void send_picture(struct vnc *v, const struct surface *s, unsigned w, unsigned h, unsigned first, unsigned last)
{
	uint16_t width = (uint16_t)w, height = (uint16_t)h;
	struct pixman_region16 damage;
	struct nvnc_fb *fb;
	uint32_t *pixel;

	nvnc_fb_pool_resize(v->pool, width, height, FORMAT_XRGB, width); /* says whether it had to, not whether it could */
	fb = nvnc_fb_pool_acquire(v->pool);
	if (!fb)
		return;
	pixel = nvnc_fb_get_addr(fb);
	for (unsigned y = 0; y < h; y++)
		for (unsigned x = 0; x < w; x++)
			pixel[(size_t)y * w + x] = x < s->width && y < s->height ? s->pixel[(size_t)y * s->width + x] : 0;
	pixman_region_init_rect(&damage, 0, (int)first, width, last - first + 1);
	__atomic_store_n(&v->size, width | (uint32_t)height << 16, __ATOMIC_RELEASE);
	nvnc_display_feed_buffer(v->display, fb, &damage);
	pixman_region_fini(&damage);
	nvnc_fb_unref(fb);
}

static void look(struct vnc *v)
{
	struct surface old = v->sent;
	unsigned first = 0, last = 0;

	if (v->config.screen->picture(v->config.screen->opaque, &v->now) || !v->now.width || !v->now.height)
		return;
	if (!changed_rows(v, &first, &last))
		return;
	send_picture(v, &v->now, v->now.width, v->now.height, first, last);
	v->sent = v->now; /* what was sent, and room for the next */
	v->now = old;
}

static void tick(void *obj)
{
	look(aml_get_userdata(obj));
}

/* ---- clients */

static struct vnc *vnc_of(struct nvnc_client *c)
{
	return nvnc_get_userdata(nvnc_client_get_server(c));
}

static void client_asks(struct nvnc_client *c, bool incremental, uint16_t x, uint16_t y, uint16_t width, uint16_t height)
{
	struct greeted *g = nvnc_get_userdata(c);
	struct vnc *v = vnc_of(c);

	if (!g || g->served)
		return;
	g->served = true;
	if (g->width == v->sent.width && g->height == v->sent.height)
		return;
	send_picture(v, &v->sent, g->width, g->height, 0, g->height - 1);
	v->sent.width = v->sent.height = 0; /* everything again with the next look */
}

static void client_gone(struct nvnc_client *c)
{
	struct vnc *v = vnc_of(c);

	if (--v->clients || !v->ticking)
		return;
	aml_stop(v->loop, v->ticker);
	v->ticking = false;
}

static void client_new(struct nvnc_client *c)
{
	struct vnc *v = vnc_of(c);

	struct greeted *g = malloc(sizeof(*g));

	if (g) {
		*g = (struct greeted){ .width = v->sent.width, .height = v->sent.height };
		nvnc_set_userdata(c, g, free);
	}
	nvnc_set_client_cleanup_fn(c, client_gone);
	if (v->clients++)
		return;
	v->ticking = !aml_start(v->loop, v->ticker);
}

static void key_symbol(struct nvnc_client *c, uint32_t symbol, bool down)
{
	const struct vnc *v = vnc_of(c);
	unsigned code = v->layout ? key_layout_find(v->layout, symbol) : 0;

	if (!code)
		code = key_of_keysym(symbol);

	if (code)
		v->config.keyboard.key(v->config.keyboard.opaque, code, down);
}

static void key_code(struct nvnc_client *c, uint32_t xt, bool down)
{
	struct vnc *v = vnc_of(c);
	unsigned code = key_of_xt(xt);

	if (code)
		v->config.keyboard.key(v->config.keyboard.opaque, code, down);
}

static unsigned scaled(unsigned at, unsigned size)
{
	return size > 1 ? (unsigned)MIN((uint64_t)at * VNC_POINTER_RANGE / (size - 1), VNC_POINTER_RANGE) : 0;
}

static void pointer(struct nvnc_client *c, uint16_t x, uint16_t y, enum nvnc_button_mask mask)
{
	struct vnc *v = vnc_of(c);
	unsigned buttons = (mask & NVNC_BUTTON_LEFT ? 1u : 0) | (mask & NVNC_BUTTON_RIGHT ? 2u : 0) |
			   (mask & NVNC_BUTTON_MIDDLE ? 4u : 0);
	int wheel = mask & NVNC_SCROLL_UP ? -1 : mask & NVNC_SCROLL_DOWN ? 1 : 0;

	if (!v->config.tablet ||
	    !v->config.tablet(v->config.opaque, scaled(x, v->sent.width), scaled(y, v->sent.height), wheel, buttons & BUTTONS_HELD))
		v->config.mouse(v->config.opaque, x - v->x, y - v->y, wheel, buttons & BUTTONS_HELD);
	v->x = x;
	v->y = y;
}

/* ---- life */

static void stop_wanted(void *obj)
{
	struct vnc *v = aml_get_userdata(obj);

	aml_exit(v->loop);
}

static void *vnc_thread(void *opaque)
{
	struct vnc *v = opaque;

	pthread_setname_np(pthread_self(), "vnc");
	aml_run(v->loop);
	return NULL;
}

/* Any thread. While the screen changes its size the old one may be told for the blink of an eye. */
static void size_now(void *opaque, unsigned *width, unsigned *height)
{
	struct vnc *v = opaque;
	uint32_t size = __atomic_load_n(&v->size, __ATOMIC_ACQUIRE);

	*width = size & 0xffff;
	*height = size >> 16;
}

static int server_open(struct vnc *v, struct err *e)
{
	const char *address = v->config.address ? v->config.address : "127.0.0.1";

	struct vnc_filter filter = { .size = size_now, .opaque = v };

	if (v->config.password) {
		v->auth = vnc_auth_create(v->config.password, v->config.tls, e);
		if (!v->auth)
			return err_prefix(e, "--vnc-password");
	}
	v->gate = vnc_gate_open(address, v->config.port, &filter, v->auth, e);
	if (!v->gate)
		return -1;
	v->server = nvnc_open_unix(vnc_gate_path(v->gate));
	if (!v->server)
		return err_set(e, EIO, "cannot listen on %s", vnc_gate_path(v->gate));
	return vnc_gate_anchor(v->gate, e);
}

static int start(struct vnc *v, struct err *e)
{
	int r;

	v->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	v->loop = aml_new();
	if (v->stop < 0 || !v->loop)
		return err_set(e, ENOMEM, "no memory for a VNC server");
	aml_set_default(v->loop);
	nvnc_set_log_level(NVNC_LOG_PANIC);
	r = server_open(v, e);
	if (r)
		return r;
	v->display = nvnc_display_new(0, 0);
	v->pool = nvnc_fb_pool_new(640, 400, FORMAT_XRGB, 640);
	v->ticker = aml_ticker_new(FRAME_MS, tick, v, NULL);
	v->idle = aml_ticker_new(IDLE_MS, tick, v, NULL);
	v->stopper = aml_handler_new(v->stop, stop_wanted, v, NULL);
	if (!v->display || !v->pool || !v->ticker || !v->idle || !v->stopper)
		return err_set(e, ENOMEM, "no memory for a VNC server");
	nvnc_set_userdata(v->server, v, NULL);
	nvnc_set_name(v->server, v->config.name);
	nvnc_set_new_client_fn(v->server, client_new);
	nvnc_set_key_fn(v->server, key_symbol);
	nvnc_set_key_code_fn(v->server, key_code);
	nvnc_set_pointer_fn(v->server, pointer);
	nvnc_add_display(v->server, v->display);
	look(v);
	nvnc_set_fb_req_fn(v->server, client_asks);
	aml_start(v->loop, v->stopper);
	aml_start(v->loop, v->idle);
	r = pthread_create(&v->thread, NULL, vnc_thread, v);
	if (r) {
		errno = r;
		return err_errno(e, "cannot create the VNC server's thread");
	}
	v->started = true;
	return v->gate ? vnc_gate_start(v->gate, e) : 0;
}

struct vnc *vnc_open(const struct vnc_config *config, struct err *e)
{
	struct vnc *v = calloc(1, sizeof(*v));

	if (!v) {
		err_set(e, ENOMEM, "no memory for a VNC server");
		return NULL;
	}
	v->config = *config;
	v->stop = -1;
	if (vnc_libs_load(e)) {
		free(v);
		return NULL;
	}
	if (config->layout)
		v->layout = key_layout_open(config->layout, e);
	if ((config->layout && !v->layout) || start(v, e)) {
		vnc_close(v);
		return NULL;
	}
	return v;
}

void vnc_close(struct vnc *v)
{
	uint64_t one = 1;

	if (!v)
		return;
	vnc_gate_stop(v->gate);
	if (v->started && write(v->stop, &one, sizeof(one)) == sizeof(one))
		pthread_join(v->thread, NULL);
	if (v->started) {
		aml_stop(v->loop, v->stopper);
		aml_stop(v->loop, v->idle);
	}
	if (v->display) {
		if (v->server)
			nvnc_remove_display(v->server, v->display);
		nvnc_display_unref(v->display);
	}
	if (v->server)
		nvnc_close(v->server); /* its clients go through client_gone */
	vnc_auth_free(v->auth);
	vnc_gate_close(v->gate);
	if (v->pool)
		nvnc_fb_pool_unref(v->pool);
	if (v->ticker)
		aml_unref(v->ticker);
	if (v->idle)
		aml_unref(v->idle);
	if (v->stopper)
		aml_unref(v->stopper);
	if (v->loop)
		aml_unref(v->loop);
	if (v->stop >= 0)
		close(v->stop);
	surface_dispose(&v->now);
	surface_dispose(&v->sent);
	key_layout_close(v->layout);
	free(v);
}

bool vnc_parse(const char *spec, char address[VNC_ADDRESS], uint16_t *port)
{
	const char *number, *end;
	unsigned long n;

	*address = 0;
	*port = VNC_PORT;
	if (strncmp(spec, "vnc", 3))
		return false;
	spec += 3;
	if (!*spec)
		return true;
	if (*spec++ != ':')
		return false;
	number = strrchr(spec, ':');
	if (number) {
		if (number == spec || number - spec >= VNC_ADDRESS)
			return false;
		memcpy(address, spec, (size_t)(number - spec));
		address[number - spec] = 0;
		spec = number + 1;
	}
	n = strtoul(spec, (char **)&end, 10);
	*port = (uint16_t)n;
	return *spec >= '0' && *spec <= '9' && !*end && n && n <= 65535;
}
