/* SPDX-License-Identifier: Apache-2.0 */
/* ospite image: disk images made, shown, converted, repaired. Formats are said or read off a file's name, never its content. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "cli/image.h"

#define GIB (1024.0 * 1024 * 1024)

/* ---- options */

static int set_format(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->format = v;
	return 0;
}
static int set_to_format(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->to_format = v;
	return 0;
}
static int set_backing(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->backing = v;
	return 0;
}
static int set_backing_format(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->backing_format = v;
	return 0;
}
static int set_cache(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->cache = v;
	return 0;
}
static int set_make(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->make = v;
	return 0;
}
static int set_apply(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->apply = v;
	return 0;
}
static int set_delete(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->delete = v;
	return 0;
}
static int set_listen(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->listen = v;
	return 0;
}
static int set_name(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->name = v;
	return 0;
}
static int set_size(void *into, const char *v, struct err *e)
{
	struct image_args *a = into;

	a->grow = *v == '+';
	return parse_size(v + a->grow, &a->size, e);
}
static int set_cluster_size(void *into, const char *v, struct err *e)
{
	struct image_args *a = into;
	char *end;

	a->cluster_size = strtoull(v, &end, 10);
	return end != v && !*end ? 0 : parse_size(v, &a->cluster_size, e);
}
static int set_count(void *into, const char *v, struct err *e)
{
	return parse_number(v, 1, 1u << 30, &((struct image_args *)into)->count, e);
}
static int set_depth(void *into, const char *v, struct err *e)
{
	return parse_number(v, 1, 256, &((struct image_args *)into)->depth, e);
}
static int set_block(void *into, const char *v, struct err *e)
{
	struct image_args *a = into;
	int r = parse_size(v, &a->block, e);

	if (!r && (a->block < 512 || a->block > 16u << 20 || a->block % 512))
		return err_set(e, EINVAL, "must be from 512 to 16M");
	return r;
}
static int set_compression(void *into, const char *v, struct err *e)
{
	struct image_args *a = into;

	a->zstd = !strcmp(v, "zstd");
	return a->zstd || !strcmp(v, "zlib") ? 0 : err_set(e, EINVAL, "is zlib or zstd");
}
static int set_preallocation(void *into, const char *v, struct err *e)
{
	static const char *const words[] = { "off", "metadata", "falloc", "full" };

	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		if (!strcmp(v, words[i])) {
			((struct image_args *)into)->preallocation = (enum image_preallocation)i;
			return 0;
		}
	}
	return err_set(e, EINVAL, "is off, metadata, falloc or full");
}
static int set_json(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->json = true;
	return 0;
}
static int set_quiet(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->quiet = true;
	return 0;
}
static int set_force(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->force = true;
	return 0;
}
static int set_shrink(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->shrink = true;
	return 0;
}
static int set_repair(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->repair = true;
	return 0;
}
static int set_lazy(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->lazy = true;
	return 0;
}
static int set_compress(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->compress = true;
	return 0;
}
static int set_write(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->write = true;
	return 0;
}
static int set_random(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->random = true;
	return 0;
}
static int set_read_only(void *into, const char *v, struct err *e)
{
	((struct image_args *)into)->read_only = true;
	return 0;
}

#define FORMAT { "format", "FORMAT", "raw, qcow2, vmdk, vdi, vhdx; without, what the name ends with", set_format }
#define JSON { "json", NULL, "print JSON", set_json }
#define QUIET { "quiet", NULL, "no progress bar, no words", set_quiet }
#define END { NULL, NULL, NULL, NULL }
#define LAYOUT \
	{ "cluster-size", "SIZE", "of qcow2, 512 to 2M; 64k unless given", set_cluster_size }, \
	{ "lazy-refcounts", NULL, "qcow2: faster writes, a repair after a crash", set_lazy }, \
	{ "compression", "TYPE", "qcow2: zlib or zstd", set_compression }, \
	{ "preallocation", "HOW", "off, metadata, falloc or full", set_preallocation }, \
	{ "force", NULL, "replace a file that exists", set_force }

static const struct option_def create_options[] = {
	{ "size", "SIZE", "of the disk: 20G; with a backing file its size unless given", set_size }, FORMAT,
	{ "backing", "FILE", "what the image shows where nothing was written yet", set_backing },
	{ "backing-format", "FORMAT", "the backing file's format, raw or qcow2", set_backing_format }, LAYOUT, END,
};
static const struct option_def info_options[] = { FORMAT, JSON, END };
static const struct option_def convert_options[] = {
	FORMAT, { "to-format", "FORMAT", "raw or qcow2; without, what the name ends with", set_to_format },
	{ "compress", NULL, "compress what is written (qcow2)", set_compress }, LAYOUT, QUIET, END,
};
static const struct option_def compare_options[] = {
	FORMAT, { "to-format", "FORMAT", "of the second image", set_to_format }, QUIET, END,
};
static const struct option_def resize_options[] = {
	{ "size", "SIZE", "new size, or +SIZE to add", set_size }, FORMAT,
	{ "shrink", NULL, "allow a smaller size: what lies behind it is lost", set_shrink }, END,
};
static const struct option_def check_options[] = { FORMAT, { "repair", NULL, "put right what is wrong", set_repair }, JSON, END };
static const struct option_def snapshot_options[] = {
	{ "create", "NAME", "keep the disk as it is now", set_make },
	{ "apply", "NAME", "go back; what was written since is lost", set_apply },
	{ "delete", "NAME", "forget one", set_delete }, FORMAT, JSON, END,
};
static const struct option_def map_options[] = { FORMAT, JSON, END };
static const struct option_def bench_options[] = {
	FORMAT, { "write", NULL, "write instead of read: the content is lost", set_write },
	{ "random", NULL, "random places instead of one after another", set_random },
	{ "block", "SIZE", "bytes of a request; 4k unless given", set_block },
	{ "depth", "N", "requests underway; 16 unless given", set_depth },
	{ "count", "N", "requests in all; 50000 unless given", set_count },
	{ "cache", "MODE", "writeback, writethrough, none, unsafe", set_cache }, JSON, END,
};
static const struct option_def serve_options[] = {
	{ "listen", "ADDRESS", "unix:PATH or tcp:HOST:PORT", set_listen },
	{ "name", "NAME", "of the export; empty unless given", set_name }, FORMAT,
	{ "read-only", NULL, "clients cannot write", set_read_only },
	{ "cache", "MODE", "writeback, writethrough, none, unsafe", set_cache }, END,
};

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

static int image_make(const struct image_args *a)
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

static int image_info(const struct image_args *a)
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

static int image_resize(const struct image_args *a)
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
static int image_verify(const struct image_args *a)
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

static int image_snapshots(const struct image_args *a)
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

static int image_map(const struct image_args *a)
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

/* ---- finding the verb */

static const struct verb {
	const char *name, *args, *help;
	unsigned files;
	const struct option_def *options;
	int (*main)(const struct image_args *a);
} verbs[] = {
	{ "create", "FILE", "make an empty image", 1, create_options, image_make },
	{ "info", "FILE", "show what an image is", 1, info_options, image_info },
	{ "convert", "FROM TO", "copy into a new image, of another format perhaps", 2, convert_options, image_convert },
	{ "compare", "ONE OTHER", "do two images hold the same? 0 yes, 1 no", 2, compare_options, image_compare },
	{ "resize", "FILE", "make a disk larger or smaller", 1, resize_options, image_resize },
	{ "check", "FILE", "look for errors: 0 none, 2 some, 3 only space lost", 1, check_options, image_verify },
	{ "snapshot", "FILE", "list, make, go back to, delete snapshots in a qcow2 image", 1, snapshot_options, image_snapshots },
	{ "map", "FILE", "show where what lies", 1, map_options, image_map },
	{ "bench", "FILE", "measure", 1, bench_options, image_bench },
	{ "serve", "FILE", "offer as a network block device (NBD)", 1, serve_options, image_serve },
	{ NULL, NULL, NULL, 0, NULL, NULL },
};

bool image_verb(unsigned i, struct verb_help *v)
{
	if (i + 1 >= ARRAY_LEN(verbs))
		return false;
	*v = (struct verb_help){ verbs[i].name, verbs[i].args, verbs[i].help, verbs[i].options };
	return true;
}

static void print_help(const struct verb *v)
{
	if (v) {
		printf("Usage: ospite image %s %s [OPTION...]\n%c%s.\n\n", v->name, v->args, v->help[0] - 'a' + 'A', v->help + 1);
		options_print(stdout, v->options);
		return;
	}
	puts("Usage: ospite image VERB FILE [OPTION...]\n");
	for (v = verbs; v->name; v++)
		printf("  %-9s %-10s %s\n", v->name, v->args, v->help);
	puts("\nEach explains itself: ospite image create --help. Sizes: 512M, 20G. A file nbd:unix:PATH or\n"
	     "nbd:tcp:HOST:PORT is a network block device.");
}

/* Files out of argv, options left in it. */
static int take_files(const struct verb *v, struct image_args *a, int *argc, char **argv, struct err *e)
{
	bool unknown = false; /* whose value may look like a file: whoever parses options says so */
	int n = 1;

	for (int i = 1; i < *argc; i++) {
		const struct option_def *d = v->options;

		if (argv[i][0] != '-') {
			if (a->nfiles == v->files && unknown)
				continue;
			if (a->nfiles == v->files)
				return err_set(e, EINVAL, "unexpected '%.60s': image %s takes %s", argv[i], v->name, v->args);
			a->file[a->nfiles++] = argv[i];
			continue;
		}
		argv[n++] = argv[i];
		while (d->name && strcmp(argv[i] + strspn(argv[i], "-"), d->name))
			d++;
		unknown |= !d->name && !strchr(argv[i], '=');
		if (d->name && d->arg && i + 1 < *argc)
			argv[n++] = argv[++i];
	}
	*argc = n;
	if (a->nfiles < v->files && !unknown)
		return err_set(e, EINVAL, "image %s needs %s", v->name, v->args);
	return 0;
}

int cmd_image(int argc, char **argv)
{
	struct image_args a = { 0 };
	struct err e = { 0 };
	const struct verb *v = verbs;
	const char *names[16], *near;
	unsigned n = 0;

	if (argc < 2 || argv[1][0] == '-') {
		print_help(NULL);
		return argc > 1 && options_want_help(argc, argv) ? 0 : EXIT_OURS;
	}
	while (v->name && strcmp(v->name, argv[1]))
		names[n++] = v++->name;
	if (!v->name) {
		near = nearest(argv[1], names, n);
		return near ? cli_fail("unknown 'image %.60s'; did you mean 'image %s'?", argv[1], near) :
			      cli_fail("unknown 'image %.60s'; 'ospite image --help' lists the verbs", argv[1]);
	}
	argc--;
	argv++;
	if (options_want_help(argc, argv)) {
		print_help(v);
		return 0;
	}
	if (take_files(v, &a, &argc, argv, &e) || options_parse(v->options, &a, argc, argv, &e))
		return cli_fail("%s", e.text);
	return v->main(&a);
}
