/* SPDX-License-Identifier: Apache-2.0 */
/* The saved machine's file: see file.h. Nothing in it is trusted: lengths are bounded by the file's own size. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "base/base.h"
#include "base/err.h"
#include "state/file.h"

static const char magic[8] = "OSPITEVM";
#define FILE_VERSION 1u
#define FILE_VERSION_IMAGE 2u /* an image follows the end mark */
#define IMAGE_ALIGN 4096ull
#define SECTIONS_MAX 64

struct file_header {
	char magic[8];
	uint32_t version, reserved;
};

struct section_header {
	char tag[STATE_TAG];
	uint64_t length;
	uint32_t crc; /* of the contents; of END: of all headers before it, and the image's length if there is one */
	uint32_t reserved;
};

struct state_writer {
	int fd;
	char *path, *temp;
	bool nameless; /* it gets the name temp only to be renamed: killed before, it leaves nothing behind */
	uint64_t at; /* end of what is written */
	uint64_t section_at;
	struct section_header section;
	uint32_t headers_crc;
	unsigned sections;
	uint64_t image_at, image_length; /* 0: there is none */
};

static int write_all(struct state_writer *w, uint64_t at, const void *data, size_t len, struct err *e)
{
	const char *p = data;

	while (len) {
		ssize_t n = pwrite(w->fd, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_errno(e, "writing %s", w->temp);
		p += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* The folder that path is in, to be freed. */
static char *folder_of(const char *path)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;

	if (!copy)
		return NULL;
	if (slash)
		slash[slash == copy] = 0;
	else
		strcpy(copy, ".");
	return copy;
}

/* Without a name where the file system can do that, else under the temporary one. */
static int temp_open(struct state_writer *w)
{
	char *folder _free_ = folder_of(w->path);
	int fd = folder ? open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600) : -1;

	w->nameless = fd >= 0;
	return fd >= 0 ? fd : open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static int temp_name(struct state_writer *w, struct err *e)
{
	char self[40];

	if (!w->nameless)
		return 0;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", w->fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, w->temp, AT_SYMLINK_FOLLOW) < 0)
		return err_errno(e, "creating %s", w->temp);
	w->nameless = false;
	return 0;
}

struct state_writer *state_writer_open(const char *path, struct err *e)
{
	struct state_writer *w = calloc(1, sizeof(*w));
	struct file_header h = { .version = FILE_VERSION };

	if (!w || asprintf(&w->temp, "%s.tmp.%d", path, (int)getpid()) < 0 || !(w->path = strdup(path))) {
		err_set(e, ENOMEM, "no memory to save %s", path);
		if (w)
			free(w->temp);
		free(w);
		return NULL;
	}
	w->fd = temp_open(w);
	memcpy(h.magic, magic, sizeof(magic));
	w->at = sizeof(h);
	if (w->fd < 0) {
		err_errno(e, "creating %s", w->temp);
		free(w->temp);
		w->temp = NULL;
	} else if (!write_all(w, 0, &h, sizeof(h), e)) {
		return w;
	}
	state_writer_close(w);
	return NULL;
}

int state_writer_begin(struct state_writer *w, const char *tag, struct err *e)
{
	CHECK(strlen(tag) <= STATE_TAG);
	if (w->sections == SECTIONS_MAX)
		return err_set(e, E2BIG, "%s: more than %d sections", w->path, SECTIONS_MAX);
	memset(&w->section, 0, sizeof(w->section));
	memcpy(w->section.tag, tag, strlen(tag));
	w->section_at = w->at;
	w->at += sizeof(w->section);
	return 0;
}

int state_writer_add(struct state_writer *w, const void *data, size_t len, struct err *e)
{
	int r = write_all(w, w->at, data, len, e);

	if (r)
		return r;
	w->section.crc = (uint32_t)crc32_z(w->section.crc, data, len);
	w->section.length += len;
	w->at += len;
	return 0;
}

int state_writer_end(struct state_writer *w, struct err *e)
{
	w->sections++;
	w->headers_crc = (uint32_t)crc32_z(w->headers_crc, (const void *)&w->section, sizeof(w->section));
	return write_all(w, w->section_at, &w->section, sizeof(w->section), e);
}

static int sync_folder(const char *path, struct err *e)
{
	char *folder _free_ = folder_of(path);
	int fd _close_ = -1;

	if (!folder)
		return err_set(e, ENOMEM, "no memory to save %s", path);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return err_errno(e, "syncing the folder of %s", path);
	return 0;
}

static uint32_t end_crc(uint32_t headers, uint64_t image)
{
	return image ? (uint32_t)crc32_z(headers, (const void *)&image, sizeof(image)) : headers;
}

static uint64_t image_place(uint64_t end)
{
	return (end + IMAGE_ALIGN - 1) & ~(IMAGE_ALIGN - 1);
}

static int write_end(struct state_writer *w, struct err *e)
{
	struct section_header end = { .tag = "END", .length = w->image_length, .crc = end_crc(w->headers_crc, w->image_length) };

	return write_all(w, w->at, &end, sizeof(end), e);
}

int state_writer_image(struct state_writer *w, uint64_t length, struct err *e)
{
	struct file_header h = { .version = FILE_VERSION_IMAGE };
	int r;

	CHECK(length && !w->image_length && length <= INT64_MAX - w->at - 2 * IMAGE_ALIGN);
	memcpy(h.magic, magic, sizeof(magic));
	w->image_length = length;
	w->image_at = image_place(w->at + sizeof(struct section_header));
	r = write_all(w, 0, &h, sizeof(h), e);
	if (!r)
		r = write_end(w, e);
	if (!r && ftruncate(w->fd, (off_t)(w->image_at + length)))
		r = err_errno(e, "sizing %s", w->temp);
	return r;
}

int state_writer_image_put(struct state_writer *w, uint64_t at, const void *data, size_t len, struct err *e)
{
	CHECK(range_fits(at, len, w->image_length));
	return write_all(w, w->image_at + at, data, len, e);
}

int state_writer_commit(struct state_writer *w, struct err *e)
{
	int r = w->image_length ? 0 : write_end(w, e);

	if (r)
		return r;
	if (fsync(w->fd) < 0)
		return err_errno(e, "syncing %s", w->temp);
	r = temp_name(w, e);
	if (r)
		return r;
	if (rename(w->temp, w->path) < 0)
		return err_errno(e, "renaming %s to %s", w->temp, w->path);
	free(w->temp);
	w->temp = NULL;
	return sync_folder(w->path, e);
}

void state_writer_close(struct state_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0)
		close(w->fd);
	if (w->temp && !w->nameless)
		unlink(w->temp);
	free(w->temp);
	free(w->path);
	free(w);
}

struct section {
	char tag[STATE_TAG];
	uint64_t at, length;
};

struct state_reader {
	int fd;
	char *path;
	unsigned sections;
	struct section section[SECTIONS_MAX];
	const struct section *current;
	uint64_t image_at, image_length;
};

static int read_all(struct state_reader *r, uint64_t at, void *buf, size_t len, struct err *e)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(r->fd, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, "reading %s", r->path);
		if (n == 0)
			return err_set(e, EINVAL, "%s is truncated", r->path);
		p += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* The checksum of a large section is computed in parts by several threads. */
#define PARTS_MAX 8
#define PART_MIN (8u << 20)

struct part {
	struct state_reader *reader;
	uint64_t at, length;
	uint32_t crc;
	pthread_t thread;
	int result;
	struct err error;
};

static void *part_check(void *opaque)
{
	enum { STEP = 1 << 18 };
	struct part *p = opaque;
	uint8_t *buf _free_ = malloc(STEP);

	if (!buf)
		p->result = err_set(&p->error, ENOMEM, "no memory to read %s", p->reader->path);
	for (uint64_t done = 0; done < p->length && !p->result;) {
		size_t n = (size_t)MIN(p->length - done, (uint64_t)STEP);

		p->result = read_all(p->reader, p->at + done, buf, n, &p->error);
		if (!p->result)
			p->crc = (uint32_t)crc32_z(p->crc, buf, n);
		done += n;
	}
	return NULL;
}

static int check_contents(struct state_reader *r, const struct section_header *h, uint64_t at, struct err *e)
{
	struct part part[PARTS_MAX] = { 0 };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t n = MIN(MIN((uint64_t)MAX(cpus, 1), h->length / PART_MIN + 1), (uint64_t)PARTS_MAX);
	uint64_t each = h->length / n, threads = 1;
	uint32_t crc = 0;
	int rc = 0;

	for (uint64_t i = 0; i < n; i++)
		part[i] = (struct part){ .reader = r, .at = at + i * each,
					 .length = i + 1 < n ? each : h->length - i * each };
	while (threads < n && !pthread_create(&part[threads].thread, NULL, part_check, &part[threads]))
		threads++;
	for (uint64_t i = 0; i < n; i++) {
		if (!i || i >= threads)
			part_check(&part[i]);
		else
			pthread_join(part[i].thread, NULL);
		if (part[i].result && !rc) {
			rc = part[i].result;
			if (e)
				*e = part[i].error;
		}
		crc = i ? (uint32_t)crc32_combine(crc, part[i].crc, (off_t)part[i].length) : part[0].crc;
	}
	if (rc)
		return rc;
	if (crc != h->crc)
		return err_set(e, EINVAL, "%s is damaged: section %.8s does not match its checksum", r->path, h->tag);
	return 0;
}

/* What follows the end mark: nothing, or as many bytes as it says from the next page on. */
static bool end_fits(struct state_reader *r, const struct section_header *h, uint32_t crc, uint64_t at, uint64_t size, bool image)
{
	if (h->crc != end_crc(crc, h->length))
		return false;
	if (!image)
		return !h->length && at == size;
	r->image_at = image_place(at);
	r->image_length = h->length;
	return h->length && r->image_at <= size && h->length == size - r->image_at;
}

static int read_sections(struct state_reader *r, uint64_t size, bool image, struct err *e)
{
	uint64_t at = sizeof(struct file_header);
	uint32_t crc = 0;

	for (;;) {
		struct section_header h;
		int rc;

		if (!range_fits(at, sizeof(h), size))
			return err_set(e, EINVAL, "%s is truncated: it has no end mark", r->path);
		rc = read_all(r, at, &h, sizeof(h), e);
		if (rc)
			return rc;
		at += sizeof(h);
		if (!memcmp(h.tag, "END\0\0\0\0", STATE_TAG)) {
			if (!end_fits(r, &h, crc, at, size, image))
				return err_set(e, EINVAL, "%s is damaged or truncated: its end mark does not fit", r->path);
			return 0;
		}
		if (!range_fits(at, h.length, size))
			return err_set(e, EINVAL, "%s is truncated in section %.8s", r->path, h.tag);
		if (r->sections == SECTIONS_MAX)
			return err_set(e, EINVAL, "%s has more than %d sections", r->path, SECTIONS_MAX);
		rc = check_contents(r, &h, at, e);
		if (rc)
			return rc;
		crc = (uint32_t)crc32_z(crc, (const void *)&h, sizeof(h));
		memcpy(r->section[r->sections].tag, h.tag, STATE_TAG);
		r->section[r->sections].at = at;
		r->section[r->sections++].length = h.length;
		at += h.length;
	}
}

static int reader_check(struct state_reader *r, struct err *e)
{
	struct file_header h;
	struct stat st;
	int rc;

	if (r->fd < 0)
		return err_errno(e, "%s", r->path);
	if (fstat(r->fd, &st) < 0)
		return err_errno(e, "%s", r->path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "%s is not a regular file", r->path);
	if ((uint64_t)st.st_size < sizeof(h))
		return err_set(e, EINVAL, "%s is not a saved machine: too short", r->path);
	rc = read_all(r, 0, &h, sizeof(h), e);
	if (rc)
		return rc;
	if (memcmp(h.magic, magic, sizeof(magic)))
		return err_set(e, EINVAL, "%s is not a saved machine", r->path);
	if (h.version != FILE_VERSION && h.version != FILE_VERSION_IMAGE)
		return err_set(e, ENOTSUP, "%s has format version %u; this program reads version %u and %u", r->path, h.version,
			       FILE_VERSION, FILE_VERSION_IMAGE);
	return read_sections(r, (uint64_t)st.st_size, h.version == FILE_VERSION_IMAGE, e);
}

struct state_reader *state_reader_open(const char *path, struct err *e)
{
	struct state_reader *r = calloc(1, sizeof(*r));

	if (!r || !(r->path = strdup(path))) {
		free(r);
		err_set(e, ENOMEM, "no memory to read %s", path);
		return NULL;
	}
	r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (reader_check(r, e)) {
		state_reader_close(r);
		return NULL;
	}
	return r;
}

void state_reader_close(struct state_reader *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	free(r->path);
	free(r);
}

int state_reader_find(struct state_reader *r, const char *tag, uint64_t *length, struct err *e)
{
	char want[STATE_TAG] = "";

	CHECK(strlen(tag) <= STATE_TAG);
	memcpy(want, tag, strlen(tag));
	for (unsigned i = 0; i < r->sections; i++) {
		if (memcmp(r->section[i].tag, want, STATE_TAG))
			continue;
		r->current = &r->section[i];
		*length = r->section[i].length;
		return 0;
	}
	r->current = NULL;
	return err_set(e, ENOENT, "%s has no section %s", r->path, tag);
}

int state_reader_get(struct state_reader *r, uint64_t at, void *buf, size_t len, struct err *e)
{
	if (!r->current || !range_fits(at, len, r->current->length))
		return err_set(e, EINVAL, "%s: section %.8s is too short", r->path, r->current ? r->current->tag : "-");
	return read_all(r, r->current->at + at, buf, len, e);
}

uint64_t state_reader_image(const struct state_reader *r, int *fd, uint64_t *at)
{
	*fd = r->fd;
	*at = r->image_at;
	return r->image_length;
}

int state_reader_image_get(struct state_reader *r, uint64_t at, void *buf, size_t len, struct err *e)
{
	if (!range_fits(at, len, r->image_length))
		return err_set(e, EINVAL, "%s: its image is too short", r->path);
	return read_all(r, r->image_at + at, buf, len, e);
}
