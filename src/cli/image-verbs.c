/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of `ospite image` that make an image, show what is in it, or change it in place; and how all of them open one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "cli/image.h"

#define GIB (1024.0 * 1024 * 1024)

/* ---- what the verbs share */

const char *image_format(const char *path, const char *format)
{
	static const char *const endings[][2] = { { ".qcow2", "qcow2" }, { ".raw", "raw" }, { ".img", "raw" }, { ".iso", "raw" },
						  { ".vmdk", "vmdk" }, { ".vdi", "vdi" }, { ".vhdx", "vhdx" } };
	size_t n = strlen(path);

	for (unsigned i = 0; !format && i < ARRAY_LEN(endings); i++) {
		size_t m = strlen(endings[i][0]);

		if (n > m && !strcmp(path + n - m, endings[i][0]))
			format = endings[i][1];
	}
	if (!format)
		cli_fail("%s: say the format, which is never guessed from the content: --format raw|qcow2", path);
	return format;
}

struct block *image_open_file(const struct image_args *a, const char *path, const char *format, bool read_only, bool alone,
			      const char *more)
{
	struct err e = { 0 };
	struct block *b;
	char *spec, *p;
	size_t room;

	format = image_format(path, format);
	if (!format)
		return NULL;
	room = strlen(path) * 2 + 200 + strlen(more);
	spec = malloc(room);
	if (!spec)
		return NULL;
	p = spec + snprintf(spec, room, "format=%.20s%s%s%s%s,%s=", format, more, a->cache ? ",cache=" : "", a->cache ? a->cache : "",
			    strcmp(format, "qcow2") || alone ? "" : ",backing=header", strncmp(path, "nbd:", 4) ? "file" : "nbd");
	if (!strncmp(path, "nbd:", 4))
		path += 4;
	for (; *path; path++) {
		*p++ = *path;
		if (*path == ',')
			*p++ = ',';
	}
	*p = 0;
	if (alone ? block_open_alone(&b, spec, read_only, &e) :
		    block_open(&b, &(struct block_config){ .spec = spec, .read_only = read_only }, &e)) {
		cli_fail("%s", e.text);
		b = NULL;
	}
	free(spec);
	return b;
}

void put_json_string(const char *text)
{
	if (!text) {
		fputs("null", stdout);
		return;
	}
	putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < ' ' || c == 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

/* ---- the verbs */

int image_make(const struct image_args *a)
{
	struct image_create c = { .path = a->file[0], .format = image_format(a->file[0], a->format), .size = a->size, .backing = a->backing,
				  .backing_format = a->backing_format, .cluster_size = a->cluster_size, .lazy_refcounts = a->lazy,
				  .zstd = a->zstd, .preallocation = a->preallocation, .replace = a->force };
	struct err e = { 0 };
	struct progress bar;
	int r;

	if (!c.format)
		return EXIT_OURS;
	if (!c.size && !c.backing)
		return cli_fail("how large is the disk? --size 20G");
	progress_start(&bar, "writing", c.size, a->quiet);
	c.progress = progress_of;
	c.opaque = &bar;
	r = image_create(&c, &e);
	progress_end(&bar);
	return r ? cli_fail("%s", e.text) : 0;
}

static void print_size(const char *what, uint64_t bytes)
{
	printf("%-16s %.3g GiB (%llu bytes)\n", what, (double)bytes / GIB, (unsigned long long)bytes);
}

static void print_snapshots(struct block *b)
{
	struct image_snapshot s;

	for (unsigned i = 0; image_snapshot_get(b, i, &s); i++) {
		time_t t = (time_t)s.seconds;
		struct tm tm;
		char date[32];

		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", gmtime_r(&t, &tm));
		printf("%s%-6s %-24s %s UTC  %.3g GiB\n", i ? "" : "snapshots:\n", s.id, s.name, date, (double)s.size / GIB);
	}
}

static void json_snapshots(struct block *b)
{
	struct image_snapshot s;

	putchar('[');
	for (unsigned i = 0; image_snapshot_get(b, i, &s); i++) {
		fputs(i ? ", {\"id\": " : "{\"id\": ", stdout);
		put_json_string(s.id);
		fputs(", \"name\": ", stdout);
		put_json_string(s.name);
		printf(", \"date-sec\": %llu, \"date-nsec\": %llu, \"disk-size\": %llu, \"vm-state-size\": %llu}",
		       (unsigned long long)s.seconds, (unsigned long long)s.nanoseconds, (unsigned long long)s.size,
		       (unsigned long long)s.vm_state);
	}
	putchar(']');
}

static void info_json(struct block *b, const struct image_args *a, const struct block_info *i, const struct image_details *d)
{
	fputs("{\"filename\": ", stdout);
	put_json_string(a->file[0]);
	printf(", \"format\": \"%s\", \"virtual-size\": %llu, \"actual-size\": %llu", i->format, (unsigned long long)i->size,
	       (unsigned long long)d->disk_bytes);
	if (d->cluster_size) {
		printf(", \"cluster-size\": %llu, \"dirty-flag\": %s, \"version\": %u, \"refcount-bits\": %u, \"lazy-refcounts\": %s"
		       ", \"corrupt\": %s, \"compression-type\": \"%s\", \"backing-filename\": ",
		       (unsigned long long)d->cluster_size, d->dirty ? "true" : "false", d->version, d->refcount_bits,
		       d->lazy_refcounts ? "true" : "false", d->corrupt ? "true" : "false", d->compression);
		put_json_string(d->backing);
		fputs(", \"backing-filename-format\": ", stdout);
		put_json_string(d->backing_format);
		fputs(", \"snapshots\": ", stdout);
		json_snapshots(b);
	}
	puts("}");
}

int image_info(const struct image_args *a)
{
	struct block *b = image_open_file(a, a->file[0], a->format, true, true, "");
	struct image_details d;
	struct block_info i;

	if (!b)
		return EXIT_OURS;
	block_get_info(b, &i);
	image_get_details(b, &d);
	if (a->json) {
		info_json(b, a, &i, &d);
	} else {
		printf("%-16s %s\n%-16s %s\n", "file", a->file[0], "format", i.format);
		print_size("size", i.size);
		print_size("on this host", d.disk_bytes);
		if (d.cluster_size)
			printf("%-16s version %u, clusters of %llu bytes, %u-bit refcounts%s, %s%s%s\n", "layout", d.version,
			       (unsigned long long)d.cluster_size, d.refcount_bits, d.lazy_refcounts ? " (lazy)" : "", d.compression,
			       d.dirty ? ", NOT CLOSED CLEANLY" : "", d.corrupt ? ", MARKED CORRUPT" : "");
		if (d.backing)
			printf("%-16s %s (%s)\n", "backing file", d.backing, d.backing_format ? d.backing_format : "format not said");
		print_snapshots(b);
	}
	block_close(b);
	return 0;
}

int image_resize(const struct image_args *a)
{
	struct block *b;
	struct block_info i;
	struct err e = { 0 };
	uint64_t size = a->size;
	int status = 0;

	if (!size)
		return cli_fail("how large shall the disk be? --size 20G, or --size +5G");
	b = image_open_file(a, a->file[0], a->format, false, false, "");
	if (!b)
		return EXIT_OURS;
	block_get_info(b, &i);
	if (a->grow && __builtin_add_overflow(size, i.size, &size))
		status = cli_fail("%s cannot be that large", a->file[0]);
	else if (size < i.size && !a->shrink)
		status = cli_fail("%s has %llu bytes, so that would make it smaller, and lose what lies behind; --shrink allows it",
				  a->file[0], (unsigned long long)i.size);
	else if (block_resize(b, size, &e))
		status = cli_fail("%s", e.text);
	block_close(b);
	return status;
}

/* Exit status as qemu-img's: 2 something is wrong, 3 space is lost. */
int image_verify(const struct image_args *a)
{
	struct block *b = image_open_file(a, a->file[0], a->format, !a->repair, true, ",repair=off");
	struct image_check c = { 0 };
	struct progress bar;
	struct err e = { 0 };
	int r;

	if (!b)
		return EXIT_OURS;
	progress_start(&bar, "checking", 0, a->json);
	bar.steps = true;
	c.progress = progress_of;
	c.opaque = &bar;
	r = image_check_telling(b, a->repair, &c, &e);
	block_close(b);
	progress_end(&bar);
	if (r)
		return cli_fail("%s", e.text);
	if (a->json) {
		fputs("{\"filename\": ", stdout);
		put_json_string(a->file[0]);
		printf(", \"corruptions\": %llu, \"leaks\": %llu, \"check-errors\": %llu, \"corruptions-fixed\": %llu, \"leaks-fixed\": %llu, "
		       "\"total-clusters\": %llu, \"allocated-clusters\": %llu, \"compressed-clusters\": %llu, \"image-end-offset\": %llu}\n",
		       (unsigned long long)(c.corruptions - c.corruptions_fixed), (unsigned long long)(c.leaks - c.leaks_fixed),
		       (unsigned long long)c.errors, (unsigned long long)c.corruptions_fixed, (unsigned long long)c.leaks_fixed,
		       (unsigned long long)c.clusters, (unsigned long long)c.allocated, (unsigned long long)c.compressed,
		       (unsigned long long)c.end);
	} else {
		printf("%llu of %llu clusters allocated, %llu compressed\n", (unsigned long long)c.allocated, (unsigned long long)c.clusters,
		       (unsigned long long)c.compressed);
		if (c.errors)
			printf("%llu tables cannot be read\n", (unsigned long long)c.errors);
		if (c.corruptions)
			printf("%llu corruptions, %llu repaired\n", (unsigned long long)c.corruptions,
			       (unsigned long long)c.corruptions_fixed);
		if (c.leaks)
			printf("%llu clusters leaked (space lost, data safe), %llu repaired\n", (unsigned long long)c.leaks,
			       (unsigned long long)c.leaks_fixed);
		if (!c.errors && !c.corruptions && !c.leaks)
			puts("no errors");
	}
	if (c.errors || c.corruptions > c.corruptions_fixed)
		return 2;
	return c.leaks > c.leaks_fixed ? 3 : 0;
}

int image_snapshots(const struct image_args *a)
{
	bool change = a->make || a->apply || a->delete;
	struct image_snapshot none;
	struct block *b = image_open_file(a, a->file[0], a->format, !change, true, "");
	struct err e = { 0 };
	int r = 0;

	if (!b)
		return EXIT_OURS;
	if (a->make)
		r = image_snapshot_create(b, a->make, &e);
	if (!r && a->apply)
		r = image_snapshot_apply(b, a->apply, &e);
	if (!r && a->delete)
		r = image_snapshot_delete(b, a->delete, &e);
	if (!r && a->json) {
		json_snapshots(b);
		putchar('\n');
	} else if (!r && !change) {
		print_snapshots(b);
		if (!image_snapshot_get(b, 0, &none))
			puts("no snapshots");
	}
	block_close(b);
	return r ? cli_fail("%s", e.text) : 0;
}

int image_map(const struct image_args *a)
{
	struct block *b = image_open_file(a, a->file[0], a->format, true, false, "");
	struct block_extent x;
	struct block_info i;
	int r = 0;

	if (!b)
		return EXIT_OURS;
	block_get_info(b, &i);
	if (a->json)
		putchar('[');
	else
		puts("offset           length           kind");
	for (uint64_t at = 0; !r && at < i.size; at += x.length) {
		r = block_map(b, at, i.size - at, &x);
		if (r || !x.length)
			break;
		if (a->json)
			printf("%s{\"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s, "
			       "\"compressed\": %s",
			       at ? ",\n" : "", (unsigned long long)at, (unsigned long long)x.length, x.depth,
			       x.allocated ? "true" : "false", x.zero ? "true" : "false", x.zero ? "false" : "true",
			       x.compressed ? "true" : "false");
		else
			printf("%#-16llx %#-16llx %s%s", (unsigned long long)at, (unsigned long long)x.length,
			       x.compressed ? "compressed" : x.zero ? "zero" : "data", x.depth ? " (backing file)" : "");
		if (x.has_host && !x.zero)
			printf(a->json ? ", \"offset\": %llu" : " at %#llx", (unsigned long long)x.host);
		fputs(a->json ? "}" : "\n", stdout);
	}
	if (a->json)
		puts("]");
	block_close(b);
	return r ? cli_fail("cannot read the tables of %s: %s", a->file[0], strerrordesc_np(-r)) : 0;
}
