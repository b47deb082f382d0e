/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `ospite image` share. */
#ifndef CLI_IMAGE_H
#define CLI_IMAGE_H

#include "backend/image.h"
#include "cli/cli.h"
#include "cli/progress.h"

#define IMAGE_FILES 2u

struct image_args {
	const char *file[IMAGE_FILES];
	unsigned nfiles;
	const char *format, *to_format, *backing, *backing_format, *cache, *apply, *make, *delete, *listen, *name;
	uint64_t size, cluster_size, count, depth, block;
	bool grow; /* size is what to add */
	bool json, quiet, force, shrink, repair, lazy, zstd, compress, write, random, read_only, prealloc_set;
	enum image_preallocation preallocation;
};

/* A file of the user's; its format is the option's, or what its name ends with. NULL after saying what is wrong. */
struct block *image_open_file(const struct image_args *a, const char *path, const char *format, bool read_only, bool alone,
			      const char *more);
const char *image_format(const char *path, const char *format);
void put_json_string(const char *text); /* quoted; NULL is null */

int image_make(const struct image_args *a);
int image_info(const struct image_args *a);
int image_resize(const struct image_args *a);
int image_verify(const struct image_args *a);
int image_snapshots(const struct image_args *a);
int image_map(const struct image_args *a);
int image_convert(const struct image_args *a);
int image_compare(const struct image_args *a);
int image_bench(const struct image_args *a);
int image_serve(const struct image_args *a);

#endif
