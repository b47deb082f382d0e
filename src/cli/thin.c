/* SPDX-License-Identifier: Apache-2.0 */
/* Thin machines: which disks become bases, and the overlays on them. Names with a '/' are outside of the folder. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backend/blk.h"
#include "backend/image.h"
#include "cli/run.h"
#include "cli/thin.h"

/* ---- the plan */

static bool inside(const char *path)
{
	return path[0] && !strchr(path, '/');
}

static int add_link(struct thin *t, const char *name, struct err *e)
{
	if (!name || !inside(name) || thin_links(t, name))
		return 0;
	if (t->nlinks == THIN_FILES)
		return err_set(e, E2BIG, "it has too many files");
	t->link[t->nlinks] = strdup(name);
	return t->link[t->nlinks++] ? 0 : err_set(e, ENOMEM, "out of memory");
}

bool thin_links(const struct thin *t, const char *name)
{
	for (unsigned i = 0; i < t->nlinks; i++)
		if (!strcmp(t->link[i], name))
			return true;
	for (unsigned i = 0; i < t->noverlays; i++)
		if (!strcmp(t->overlay[i].name, name))
			return true;
	return false;
}

/* A name that neither the folder nor the plan has. */
static int overlay_name(const struct thin *t, int folder, char name[32], struct err *e)
{
	for (unsigned n = 0; n < 1000; n++) {
		bool taken;

		snprintf(name, 32, n ? "disk-%u.qcow2" : "disk.qcow2", n);
		taken = !faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW);
		for (unsigned i = 0; i < t->noverlays; i++)
			taken |= !strcmp(t->overlay[i].name, name);
		if (!taken)
			return 0;
	}
	return err_set(e, EEXIST, "there is no name left for its disks");
}

static void put_value(FILE *f, const char *key, const char *value)
{
	fprintf(f, ",%s=", key);
	for (; *value; value++)
		fprintf(f, *value == ',' ? ",," : "%c", *value);
}

/* Everything but file, format and backing files stays as it was. */
static void put_rest(FILE *f, const char *text)
{
	static const char *const ours[] = { "file=", "format=", "backing=", "backing-format=" };
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz-");

	if (text[n] != '=' && strncmp(text, "readonly,", 9))
		return; /* a plain path */
	while (*text) {
		const char *end = strchrnul(text, ',');
		bool is_ours = false;

		while (*end && end[1] == ',')
			end = strchrnul(end + 2, ',');
		for (unsigned i = 0; i < ARRAY_LEN(ours); i++)
			is_ours |= !strncmp(text, ours[i], strlen(ours[i]));
		if (!is_ours)
			fprintf(f, ",%.*s", (int)(end - text), text);
		text = *end ? end + 1 : end;
	}
}

static int overlay_value(struct thin *t, const struct thin_overlay *o, const struct blk_spec *s, const char *text, struct err *e)
{
	size_t size;
	FILE *f = open_memstream(&t->values[t->nvalues], &size);

	if (!f)
		return err_set(e, ENOMEM, "out of memory");
	fprintf(f, "format=qcow2,file=%s", o->name);
	put_rest(f, text);
	put_value(f, "backing", o->base);
	put_value(f, "backing-format", o->format);
	for (unsigned i = 0; i < s->nbacking; i++) {
		put_value(f, "backing", s->backing[i].path);
		if (s->backing[i].format[0])
			put_value(f, "backing-format", s->backing[i].format);
	}
	if (fclose(f))
		return err_set(e, ENOMEM, "out of memory");
	t->nvalues++;
	return 0;
}

/* What ours are among a disk's keys is not the back-end's. */
static char *backend_text(const char *text)
{
	static const char *const board[] = { "bus=", "serial=", "queues=" };
	char *out = strdup(text), *at = out;

	while (out && *at) {
		char *end = strchrnul(at, ',');
		bool drop = false;

		while (*end && end[1] == ',')
			end = strchrnul(end + 2, ',');
		for (unsigned i = 0; i < ARRAY_LEN(board); i++)
			drop |= !strncmp(at, board[i], strlen(board[i]));
		if (!drop)
			at = *end ? end + 1 : end;
		else if (*end)
			memmove(at, end + 1, strlen(end));
		else
			*(at > out ? at - 1 : at) = 0, at = out + strlen(out);
	}
	return out;
}

static int plan_disk(struct thin *t, int folder, const char *text, struct err *e)
{
	char *plain _free_ = backend_text(text);
	struct thin_overlay *o = &t->overlay[t->noverlays];
	struct blk_spec s;
	int r = plain ? blk_spec_parse(&s, plain, e) : err_set(e, ENOMEM, "out of memory");

	if (r)
		return r;
	if (s.read_only || s.nbd) {
		if (s.nbd && !s.read_only)
			r = err_set(e, EBUSY, "its disk %.150s would be written by both", text);
		t->values[t->nvalues] = strdup(text);
		t->nvalues += t->values[t->nvalues] != NULL;
		r = r ? r : add_link(t, s.path, e);
	} else if (!inside(s.path)) {
		r = err_set(e, EBUSY, "its disk %.150s is not in its folder and would be written by both: move it there", text);
	} else if (s.backing_header) {
		r = err_set(e, EINVAL, "its disk %.150s has backing=header: name the files with backing=PATH,backing-format=FORMAT", text);
	} else if (s.nbacking + 1 >= BLK_CHAIN) {
		r = err_set(e, ELOOP, "its disk %.150s is an overlay of %u already: clone it without --thin", text, s.nbacking);
	} else {
		r = overlay_name(t, folder, o->name, e);
		o->base = strdup(s.path);
		snprintf(o->format, sizeof(o->format), "%s", s.format);
		t->noverlays++;
		if (!r && !o->base)
			r = err_set(e, ENOMEM, "out of memory");
		if (!r)
			r = add_link(t, o->base, e);
		for (unsigned i = 0; i < s.nbacking && !r; i++)
			r = add_link(t, s.backing[i].path, e);
		if (!r)
			r = overlay_value(t, o, &s, text, e);
	}
	blk_spec_dispose(&s);
	return r;
}

int thin_plan(struct thin *t, const char *yaml, int folder, struct err *e)
{
	static const char *const only_read[] = { "kernel", "initrd", "pmem", "cdrom" };
	char *values[CONFIG_LIST];
	unsigned n = 0;
	int r;

	*t = (struct thin){ 0 };
	r = run_config_values(yaml, "disk", values, &n, e);
	for (unsigned i = 0; i < n && !r; i++)
		r = t->noverlays < PC_DISKS && t->nvalues < THIN_FILES ? plan_disk(t, folder, values[i], e) :
									 err_set(e, E2BIG, "it has too many disks");
	run_config_values_free(values, &n);
	for (unsigned k = 0; k < ARRAY_LEN(only_read) && !r; k++) {
		r = run_config_values(yaml, only_read[k], values, &n, e);
		for (unsigned i = 0; i < n && !r; i++)
			r = faccessat(folder, values[i], F_OK, AT_SYMLINK_NOFOLLOW) ? 0 : add_link(t, values[i], e);
		run_config_values_free(values, &n);
	}
	return r;
}

int thin_yaml(const struct thin *t, const char *yaml, char **out, struct err *e)
{
	return run_config_edit(yaml, "disk", (const char *const *)t->values, t->nvalues, out, e);
}

/* ---- doing it */

/* By descriptor, and never through a link: who runs a machine may have written to its folder. */
static int link_one(int from, int to, const char *name, struct err *e)
{
	int fd _close_ = openat(from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st, now;

	if (fd < 0 || fstat(fd, &st))
		return err_errno(e, "cannot open %.200s", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "%.200s is no file", name);
	if ((!geteuid() && fchown(fd, 0, 0)) || fchmod(fd, 0444))
		return err_errno(e, "cannot make %.200s read-only", name);
	if (linkat(from, name, to, name, 0)) {
		if (errno != EXDEV && errno != EPERM && errno != EMLINK && errno != EOPNOTSUPP)
			return err_errno(e, "cannot link %.200s", name);
		return file_copy(from, name, to, name, NULL, e); /* another file system, or one without links */
	}
	if (fstatat(to, name, &now, AT_SYMLINK_NOFOLLOW) || now.st_ino != st.st_ino || now.st_dev != st.st_dev)
		return err_set(e, EAGAIN, "%.200s was changed meanwhile", name);
	return 0;
}

int thin_link(const struct thin *t, int from, int to, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < t->nlinks && !r; i++)
		r = link_one(from, to, t->link[i], e);
	return r;
}

static uint64_t size_of(int folder, const struct thin_overlay *o)
{
	char spec[96 + 2 * BLK_PATH];
	struct block_info info = { 0 };
	struct block *b;

	snprintf(spec, sizeof(spec), "readonly,format=%s,%sfile=/proc/self/fd/%d/%.1000s", o->format,
		 strcmp(o->format, "qcow2") ? "" : "backing=header,", folder, o->base);
	if (block_open(&b, &(struct block_config){ .spec = spec, .read_only = true }, NULL))
		return 0; /* making the overlay says why */
	block_get_info(b, &info);
	block_close(b);
	return info.size;
}

int thin_make(const struct thin *t, int folder, uint64_t size, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < t->noverlays && !r; i++) {
		const struct thin_overlay *o = &t->overlay[i];
		char path[64 + sizeof(o->name)];
		struct image_create c = { .path = path, .format = "qcow2", .backing = o->base, .backing_format = o->format };

		snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", folder, o->name);
		if (!i && size && size_of(folder, o) < size)
			c.size = size;
		r = image_create(&c, e);
	}
	return r;
}

void thin_dispose(struct thin *t)
{
	while (t->nvalues)
		free(t->values[--t->nvalues]);
	while (t->noverlays)
		free(t->overlay[--t->noverlays].base);
	while (t->nlinks)
		free(t->link[--t->nlinks]);
}
