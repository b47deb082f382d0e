/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files for a machine that runs: its process sees none but its own, so the command opens them, with the rights of who gives it, and hands them
 * over. One that cannot be opened here is left to the process, which says why it cannot.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "backend/block.h"
#include "cli/life.h"
#include "cli/run.h"

static int bring(void *peer, const char *path, bool write, struct err *e)
{
	const int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd _close_ = open(path, flags | (write ? O_RDWR : O_RDONLY));

	if (fd < 0)
		return 0;
	fcntl(fd, F_SETFL, 0); /* O_NONBLOCK was for FIFOs in the way */
	return ctl_bring(peer, path, fd, ANSWER_MS, e);
}

int life_bring_file(struct ctl_peer *p, const char *path, struct err *e)
{
	return bring(p, path, false, e);
}

int life_bring_disk(struct ctl_peer *p, const char *text, struct err *e)
{
	char *spec _free_ = strdup(text);
	struct pc_disk d = { .spec = NULL };
	int r = spec ? pc_disk_parse(&d, spec, e) : err_set(e, ENOMEM, "out of memory");

	return r || !d.spec ? r : block_spec_files(d.spec, d.cdrom, bring, p, e);
}

/* A picture's file is made here: its folder may be none of the machine's. */
static int bring_new(struct ctl_peer *p, const char *path, struct err *e)
{
	int fd _close_ = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);

	if (fd < 0)
		return err_errno(e, "cannot write %.200s", path);
	return ctl_bring(p, path, fd, ANSWER_MS, e);
}

int life_bring_arguments(struct ctl_peer *p, const char *command, const json_t *arguments, struct err *e)
{
	const char *file = json_string_value(json_object_get(arguments, "filename")), *disk = json_string_value(json_object_get(arguments, "disk"));

	if (disk && !strcmp(command, "ospite-disk-add"))
		return life_bring_disk(p, disk, e);
	if (file && !strcmp(command, "blockdev-change-medium"))
		return life_bring_file(p, file, e);
	if (file && !strcmp(command, "screendump") && strncmp(file, "/dev/fdset/", 11))
		return bring_new(p, file, e);
	return 0;
}
