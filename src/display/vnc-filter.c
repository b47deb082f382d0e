/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libneatvnc 0.5 believes its clients: a pixel format, a rectangle or a key's number that makes no sense overruns its buffers, and
 * one who says he wants no security gets none (CVE-2024-42458). So what clients say (RFC 6143, chapter 7) is read here first.
 * Messages pass when they are good, are cut to what is, or end the connection; those nobody answers are swallowed.
 */
#include <string.h>
#include "base/base.h"
#include "display/keys.h"
#include "display/vnc-filter.h"

#define ENCODINGS_MAX 256u
#define CUT_TEXT_MAX (1u << 20)
#define MAX_BITS 10u

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}
static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}
static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* One colour: all ones of up to ten bits, that lie in the pixel. */
static bool colour_good(uint32_t max, unsigned shift, unsigned bits)
{
	unsigned n = 0;

	while (n < MAX_BITS && max >> n)
		n++;
	return max && max + 1 == 1u << n && shift + n <= bits;
}

static bool format_good(const uint8_t *p)
{
	unsigned bits = p[0], depth = p[1];

	return (bits == 8 || bits == 16 || bits == 32) && depth && depth <= bits && p[2] <= 1 && p[3] &&
	       colour_good(get16(p + 4), p[10], bits) && colour_good(get16(p + 6), p[11], bits) &&
	       colour_good(get16(p + 8), p[12], bits);
}

/* Not among them: -258, keys by their numbers. The library's answer to it crashes now and then; keys come by name. */
static bool encoding_known(int32_t e)
{
	switch (e) {
	case 0:	   /* raw */
	case 7:	   /* tight */
	case 16:   /* ZRLE */
	case -223: /* sizes of the screen */
		return true;
	default:
		return e >= -32 && e <= -23; /* quality of tight */
	}
}

/* Bytes of the message at f->head, of which the first `have` are there; 0: not yet known. SIZE_MAX: it is none. */
static size_t message_size(const struct vnc_filter *f)
{
	switch (f->head[0]) {
	case 0:
		return 20;
	case 2:
		if (f->have < 4)
			return 0;
		return get16(f->head + 2) <= ENCODINGS_MAX ? 4 + 4 * get16(f->head + 2) : SIZE_MAX;
	case 3:
		return 10;
	case 4:
		return 8;
	case 5:
		return 6;
	case 6: /* its text follows and is swallowed */
		return 8;
	case 255:
		return 12;
	default:
		return SIZE_MAX;
	}
}

static void rectangle_cut(uint8_t *p, unsigned width, unsigned height)
{
	uint32_t x = MIN(get16(p), width), y = MIN(get16(p + 2), height);

	put16(p, x);
	put16(p + 2, y);
	put16(p + 4, MIN(get16(p + 4), width - x));
	put16(p + 6, MIN(get16(p + 6), height - y));
}

/* A whole message: its length on the way on, or -1. */
static ssize_t message_check(struct vnc_filter *f)
{
	uint8_t *p = f->head;
	unsigned n = 0, width = 0, height = 0;

	switch (p[0]) {
	case 0:
		return format_good(p + 4) ? 20 : -1;
	case 2:
		for (unsigned i = 0; i < get16(p + 2); i++)
			if (encoding_known((int32_t)get32(p + 4 + 4 * i)))
				memmove(p + 4 + 4 * n++, p + 4 + 4 * i, 4);
		put16(p + 2, n);
		return 4 + 4 * (ssize_t)n;
	case 3:
		f->size(f->opaque, &width, &height);
		rectangle_cut(p + 2, width, height);
		return 10;
	case 4:
		return 8;
	case 5:
		return 6;
	case 6:
		f->skip = get32(p + 4);
		return f->skip <= CUT_TEXT_MAX ? 0 : -1;
	default: /* the number of a key, if it is one that the guest's keyboard has */
		return p[1] ? -1 : key_of_xt(get32(p + 8)) ? 12 : 0;
	}
}

/* The first 14 bytes: version, security, whether to share. */
static bool greeting_check(struct vnc_filter *f, uint8_t byte)
{
	if (f->greeted < 12)
		return byte == (uint8_t)VNC_VERSION[f->greeted];
	return f->greeted != 12 || byte == VNC_SECURITY_NONE;
}

bool vnc_filter(struct vnc_filter *f, const uint8_t *in, size_t n, uint8_t *out, size_t *out_n)
{
	size_t done = 0;

	*out_n = 0;
	while (done < n && f->greeted < VNC_GREETED + 1) {
		if (!greeting_check(f, in[done]))
			return false;
		f->greeted++;
		out[(*out_n)++] = in[done++];
	}
	while (done < n) {
		size_t part = MIN(f->skip, n - done), size;
		ssize_t pass;

		f->skip -= part;
		done += part;
		if (done == n)
			break;
		f->head[f->have++] = in[done++];
		size = message_size(f);
		if (size == SIZE_MAX)
			return false;
		if (!size || f->have < size)
			continue;
		pass = message_check(f);
		if (pass < 0)
			return false;
		memcpy(out + *out_n, f->head, (size_t)pass);
		*out_n += (size_t)pass;
		f->have = 0;
	}
	return true;
}
