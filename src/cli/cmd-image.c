/* SPDX-License-Identifier: Apache-2.0 */
/* ospite image: disk images made, shown, converted, repaired. Formats are said or read off a file's name, never its content. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/image.h"

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
