/* SPDX-License-Identifier: Apache-2.0 */
/* ospite medium: what is in a machine's CD-ROM drives, and changing it while it runs. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cli/life.h"

static int show(json_t *disks, bool json)
{
	json_t *rows = json_array(), *one;
	size_t i;

	json_array_foreach(disks, i, one)
	{
		json_t *inserted = json_object_get(one, "inserted");
		const char *file = json_string_value(json_object_get(inserted, "file"));

		if (!json_is_true(json_object_get(one, "removable")))
			continue;
		if (json) {
			json_array_append_new(rows, json_pack("{s:O,s:s?}", "drive", json_object_get(one, "device"), "file", file));
		} else {
			text_print(json_string_value(json_object_get(one, "device")) ?: "", false);
			fputs(": ", stdout);
			text_print(file ? file : "no medium", false);
			putchar('\n');
		}
	}
	if (json)
		print_json(rows);
	json_decref(rows);
	return 0;
}

/* The drive asked for, or the only one. */
static int drive_of(struct life_args *a, json_t *disks, const char **name, struct err *e)
{
	unsigned found = 0;
	json_t *one;
	size_t i;

	*name = a->drive;
	json_array_foreach(disks, i, one)
	{
		if (a->drive || !json_is_true(json_object_get(one, "removable")))
			continue;
		*name = json_string_value(json_object_get(one, "device"));
		found++;
	}
	if (!*name)
		return err_set(e, ENODEV, "machine '%s' has no CD-ROM drive; one has to be there from the start: --cdrom none", a->words[0]);
	return found > 1 ? err_set(e, EINVAL, "machine '%s' has %u CD-ROM drives: say which by --drive", a->words[0], found) : 0;
}

static int change(struct life_args *a, struct store *s, const char *drive, struct err *e)
{
	char path[PATH_MAX], here[PATH_MAX] = "";
	const char *file = a->nwords > 1 ? a->words[1] : NULL;
	json_t *arguments;
	int fd _close_ = -1;

	if (!file)
		return life_ask(a, s, "eject", json_pack("{s:s,s:b}", "device", drive, "force", a->force), NULL, e);
	if (*file != '/' && !getcwd(here, sizeof(here)))
		return err_errno(e, "cannot tell where we are");
	if ((size_t)snprintf(path, sizeof(path), "%s%s%s", here, *file == '/' ? "" : "/", file) >= sizeof(path))
		return err_set(e, ENAMETOOLONG, "%.60s...: the name is too long", file);
	arguments = json_pack("{s:s,s:s,s:b}", "device", drive, "filename", path, "force", a->force);
	if (!arguments)
		return err_set(e, EINVAL, "%.60s: not a name in UTF-8", file);
	if (a->format)
		json_object_set_new(arguments, "format", json_string(a->format));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return life_ask_with(a, s, fd < 0 ? NULL : path, fd, "blockdev-change-medium", arguments, NULL, e);
}

int life_medium(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	json_t *disks = NULL;
	const char *drive;
	int r;

	if (a->eject && a->nwords > 1)
		return err_set(e, EINVAL, "either a file or --eject");
	r = life_ask(a, s, "query-block", NULL, &disks, e);
	if (r)
		return r;
	if (!a->eject && a->nwords == 1) {
		r = show(disks, a->json);
	} else {
		r = drive_of(a, disks, &drive, e);
		if (!r)
			r = change(a, s, drive, e);
	}
	json_decref(disks);
	return r;
}
