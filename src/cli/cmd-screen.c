/* SPDX-License-Identifier: Apache-2.0 */
/* Commands for a machine's screen and keyboard, and the exchange of its engine: each one request to its control socket. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cli/life.h"
#include "ctl/ctl.h"

#define KEYS_MAX 16
#define KEYS_WAIT_NS 50000000 /* between tries, while the guest's keyboard is full */
#define KEYS_WAITS 200
#define SLOW_MS 60000 /* for what waits for the CPUs */

int life_ask_with(struct life_args *a, struct store *s, const char *file, int fd, const char *command, json_t *arguments, json_t **result,
		  struct err *e)
{
	struct ctl_peer *p = NULL;
	struct store_vm m;
	int r = store_vm_open(s, a->words[0], &m, e);

	if (!r) {
		r = life_connect(&m, &p, e);
		if (!r && file)
			r = ctl_bring(p, file, fd, SLOW_MS, e);
		if (!r) {
			r = ctl_call_command(p, command, arguments, result, SLOW_MS, e);
			arguments = NULL;
			if (r)
				r = err_prefix(e, "machine '%s'", m.name);
		}
		if (p)
			ctl_disconnect(p);
		store_vm_close(&m);
	}
	json_decref(arguments);
	return r;
}

int life_ask(struct life_args *a, struct store *s, const char *command, json_t *arguments, json_t **result, struct err *e)
{
	return life_ask_with(a, s, NULL, -1, command, arguments, result, e);
}

static int print_text(struct life_args *a, struct store *s, struct err *e)
{
	json_t *result = NULL;
	int r = life_ask(a, s, "ospite-screen-text", NULL, &result, e);

	if (!r)
		fputs(json_string_value(json_object_get(result, "text")) ?: "", stdout);
	json_decref(result);
	return r;
}

static mode_t umask_now(void)
{
	mode_t mask = umask(0);

	umask(mask);
	return mask;
}

/* The machine's process writes into a file that is opened here, beside the final name. */
static int take_picture(struct life_args *a, struct store *s, const char *path, struct err *e)
{
	char beside[PATH_MAX + 8];
	int fd _close_ = -1, r;

	snprintf(beside, sizeof(beside), "%s.XXXXXX", path);
	fd = mkostemp(beside, O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, "cannot write %s", path);
	r = life_ask_with(a, s, path, fd, "screendump", json_pack("{s:s}", "filename", path), NULL, e);
	if (!r && (fchmod(fd, 0666 & ~umask_now()) || rename(beside, path)))
		r = err_errno(e, "cannot write %s", path);
	if (r)
		unlink(beside);
	return r;
}

int life_screenshot(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	char path[PATH_MAX] = "", here[PATH_MAX];
	const char *file;

	if (a->text)
		return a->nwords == 1 ? print_text(a, s, e) : err_set(e, EINVAL, "--text is printed: leave the file out");
	if (a->nwords != 2)
		return err_set(e, EINVAL, "usage: ospite screenshot NAME FILE.png, or --text NAME");
	file = a->words[1];
	if (*file != '/' && !getcwd(here, sizeof(here)))
		return err_errno(e, "cannot tell where we are");
	if ((size_t)snprintf(path, sizeof(path), "%s%s%s", *file == '/' ? "" : here, *file == '/' ? "" : "/", file) >= sizeof(path))
		return err_set(e, ENAMETOOLONG, "%.60s...: the name is too long", file);
	return take_picture(a, s, path, e);
}

/* "ctrl-alt-delete" as QMP writes keys; a dash that stands where a name begins is the key itself. NULL: not keys. */
static json_t *keys_of(const char *word)
{
	json_t *keys = json_array();

	for (;;) {
		size_t n = *word ? 1 + strcspn(word + 1, "-") : 0;

		if (!n || json_array_size(keys) == KEYS_MAX) {
			json_decref(keys);
			return NULL;
		}
		json_array_append_new(keys, json_pack("{s:s,s:s%}", "type", "qcode", "data", word, n));
		if (!word[n])
			return keys;
		word += n + 1;
	}
}

/* What a word names is struck together, words one after the other. */
int life_sendkey(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	int r = 0;

	for (unsigned i = 1; i < a->nwords && !r; i++) {
		json_t *keys = keys_of(a->words[i]);

		if (!keys)
			return err_set(e, EINVAL, "'%.32s' is no key; write ret, a, f1, ctrl-alt-delete", a->words[i]);
		for (unsigned waits = 0;; waits++) {
			r = life_ask(a, s, "send-key", json_pack("{s:O}", "keys", keys), NULL, e);
			if (!r || waits == KEYS_WAITS || !strstr(e->text, CTL_KEYS_FULL))
				break;
			nanosleep(&(struct timespec){ .tv_nsec = KEYS_WAIT_NS }, NULL);
		}
		json_decref(keys);
	}
	return r;
}

int life_engine(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	return life_ask(a, s, "ospite-change-engine", json_pack("{s:s}", "engine", a->words[1]), NULL, e);
}
