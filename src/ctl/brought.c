/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that a client brings along, by QMP's add-fd: descriptors (SCM_RIGHTS) for disks, media, pictures that the machine's process does not
 * see by itself (vm/view.h) or may not open. A command that names a file uses the descriptor that was brought with that name as
 * `opaque`, or as /dev/fdset/N; everywhere else the file keeps its name. They are a connection's own and end with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backend/block.h"
#include "board/pc.h"
#include "ctl/private.h"

void ctl_brought_receive(struct ctl_brought *b, int fd)
{
	if (b->nwaiting == CTL_FDS_WAITING)
		close(fd);
	else
		b->waiting[b->nwaiting++] = fd;
}

void ctl_brought_dispose(struct ctl_brought *b)
{
	for (unsigned i = 0; i < b->nwaiting; i++)
		close(b->waiting[i]);
	for (unsigned i = 0; i < b->n; i++) {
		close(b->file[i].fd);
		free(b->file[i].name);
	}
	b->n = b->nwaiting = 0;
}

static int set_new(const struct ctl_brought *b)
{
	int id = 0;

	for (unsigned i = 0; i < b->n; i++)
		if (b->file[i].set >= id)
			id = b->file[i].set + 1;
	return id;
}

int ctl_add_fd(struct ctl_call *call, struct err *e)
{
	struct ctl_brought *b = &call->session->brought;
	const json_t *wanted = json_object_get(call->arguments, "fdset-id");
	const char *name = json_string_value(json_object_get(call->arguments, "opaque"));
	json_int_t set = wanted ? json_integer_value(wanted) : set_new(b);
	char *own;
	int fd;

	if (!b->nwaiting)
		return err_set(e, EINVAL, "no descriptor came with the request (SCM_RIGHTS)");
	fd = b->waiting[0];
	b->nwaiting--;
	memmove(b->waiting, b->waiting + 1, b->nwaiting * sizeof(b->waiting[0]));
	own = strdup(name ?: "");
	if (b->n == CTL_FDS || set < 0 || set > 1 << 20 || !own) {
		close(fd);
		free(own);
		return err_set(e, E2BIG, "fdset-id must be 0 to 2^20, and a connection can bring %d files", CTL_FDS);
	}
	b->file[b->n++] = (struct ctl_file){ .set = (int)set, .fd = fd, .name = own };
	call->result = json_pack("{s:i,s:i}", "fdset-id", (int)set, "fd", fd);
	return 0;
}

int ctl_remove_fd(struct ctl_call *call, struct err *e)
{
	struct ctl_brought *b = &call->session->brought;
	json_int_t set = json_integer_value(json_object_get(call->arguments, "fdset-id"));
	const json_t *fd = json_object_get(call->arguments, "fd");
	bool found = false;

	for (unsigned i = 0; i < b->n;) {
		if (b->file[i].set != set || (fd && b->file[i].fd != json_integer_value(fd))) {
			i++;
			continue;
		}
		found = true;
		close(b->file[i].fd);
		free(b->file[i].name);
		b->file[i] = b->file[--b->n];
	}
	return found ? 0 : err_set(e, ENOENT, "this connection has brought no such file");
}

int ctl_query_fdsets(struct ctl_call *call, struct err *e)
{
	const struct ctl_brought *b = &call->session->brought;

	call->result = json_array();
	for (unsigned i = 0; i < b->n; i++)
		json_array_append_new(call->result, json_pack("{s:i,s:[{s:i,s:s}]}", "fdset-id", b->file[i].set, "fds", "fd",
							      b->file[i].fd, "opaque", b->file[i].name));
	return 0;
}

static bool fits(int fd, bool write)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && ((flags & O_ACCMODE) == O_RDWR || (flags & O_ACCMODE) == (write ? O_WRONLY : O_RDONLY));
}

int ctl_brought_open(struct ctl_session *s, const char *path, bool write)
{
	const struct ctl_brought *b = &s->brought;
	bool named = false;
	int set = -1;

	sscanf(path, "/dev/fdset/%d", &set);
	for (unsigned i = 0; i < b->n; i++) {
		if (b->file[i].set != set && strcmp(b->file[i].name, path))
			continue;
		named = true;
		if (fits(b->file[i].fd, write))
			return fcntl(b->file[i].fd, F_DUPFD_CLOEXEC, 3);
	}
	errno = named ? EACCES : ENOENT;
	return -1;
}

static int open_for_disk(void *opaque, const char *path, bool write)
{
	return ctl_brought_open(opaque, path, write);
}

struct block_files ctl_brought_files(struct ctl_session *s)
{
	return (struct block_files){ .open = open_for_disk, .opaque = s };
}
