/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files on the command line become the options they stand for, so that everything after this knows options only: a disk or CD image
 * boots by firmware, on the screen when the terminal is one; a kernel boots directly, with its console on the serial port.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/run.h"
#include "cli/words.h"

enum file_kind { FILE_KERNEL, FILE_RAW, FILE_QCOW2, FILE_CD, FILE_FOREIGN };

static const struct {
	const char *ending;
	enum file_kind kind;
} endings[] = {
	{ ".qcow2", FILE_QCOW2 }, { ".img", FILE_RAW }, { ".raw", FILE_RAW }, { ".iso", FILE_CD },
	{ ".vmdk", FILE_FOREIGN }, { ".vdi", FILE_FOREIGN }, { ".vhdx", FILE_FOREIGN },
};

/* True: the name says what it is. */
static bool kind_of(const char *word, enum file_kind *kind)
{
	size_t n = strlen(word);

	for (unsigned i = 0; i < ARRAY_LEN(endings); i++) {
		size_t m = strlen(endings[i].ending);

		if (n > m && !strcasecmp(word + n - m, endings[i].ending)) {
			*kind = endings[i].kind;
			return true;
		}
	}
	*kind = FILE_KERNEL;
	return strchr(word, '/') != NULL;
}

static int add(struct run_words *w, char *text, bool ours, struct err *e)
{
	char **more = realloc(w->argv, ((size_t)w->argc + 2) * sizeof(char *));
	char **owned = ours ? realloc(w->owned, (w->nowned + 1) * sizeof(char *)) : w->owned;

	w->argv = more ? more : w->argv;
	w->owned = owned ? owned : w->owned;
	if (!text || !more || (ours && !owned)) {
		if (ours)
			free(text);
		return err_set(e, ENOMEM, "out of memory");
	}
	if (ours)
		w->owned[w->nowned++] = text;
	w->argv[w->argc++] = text;
	w->argv[w->argc] = NULL;
	return 0;
}

static int add_option(struct run_words *w, const char *name, const char *value, struct err *e)
{
	char *text;

	return add(w, asprintf(&text, "--%s=%s", name, value) < 0 ? NULL : text, true, e);
}

/* A path as a value of keys: commas doubled. */
static char *disk_text(const char *format, const char *path)
{
	char *out = malloc(strlen(path) * 2 + 64), *p = out;

	if (!out)
		return NULL;
	p += sprintf(p, "format=%s,bus=virtio,file=", format);
	for (; *path; path++) {
		*p++ = *path;
		if (*path == ',')
			*p++ = ',';
	}
	*p = 0;
	return out;
}

static int add_disk(struct run_words *w, const char *format, const char *path, struct err *e)
{
	char *text _free_ = disk_text(format, path);

	w->image = true;
	return text ? add_option(w, "disk", text, e) : err_set(e, ENOMEM, "out of memory");
}

/* What the user has just named, not what a guest may have been writing to for long: that is in a vm.yaml, with its format. */
static bool begins_with(const char *path, const char *magic)
{
	int fd _close_ = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char head[8];
	size_t n = strlen(magic);

	return fd >= 0 && read(fd, head, n) == (ssize_t)n && !memcmp(head, magic, n);
}

static int take_file(struct run_words *w, const char *word, enum file_kind kind, struct err *e)
{
	struct stat st;

	if (stat(word, &st))
		return errno == ENOENT ? err_set(e, ENOENT, "there is no file %.200s", word) : err_errno(e, "%.200s", word);
	if (S_ISDIR(st.st_mode))
		return err_set(e, EISDIR, "%.200s is a folder: give a disk image, a CD image or a kernel (--share DIR shares a folder)", word);
	if (kind == FILE_RAW && begins_with(word, "QFI\xfb"))
		return err_set(e, EINVAL, "%.150s holds a qcow2 image, as clouds' .img files do: rename it to end with .qcow2, or give --disk format=qcow2,file=%.150s",
			       word, word);
	switch (kind) {
	case FILE_RAW:
		return add_disk(w, "raw", word, e);
	case FILE_QCOW2:
		return add_disk(w, "qcow2", word, e);
	case FILE_CD:
		w->image = true;
		return add_option(w, "cdrom", word, e);
	case FILE_FOREIGN:
		return err_set(e, ENOTSUP, "%.150s can only be read: make a disk of it with 'ospite image convert %.150s disk.qcow2'", word, word);
	case FILE_KERNEL:
		break;
	}
	if (w->kernel)
		return err_set(e, EINVAL, "%.200s: there can be one kernel (disk images end with .qcow2, .img or .raw, CD images with .iso)", word);
	w->kernel = true;
	return add_option(w, "kernel", word, e);
}

static int take_word(void *opaque, const char *word, struct err *e)
{
	static const char usage_run[] = "usage: ospite run [FILE...|TEMPLATE [NAME]] [OPTION...]";
	static const char usage_create[] = "usage: ospite create NAME [FILE...|TEMPLATE] [OPTION...]";
	struct run_words *w = opaque;
	enum file_kind kind;
	bool file = kind_of(word, &kind);

	if (w->create && !w->name) {
		w->name = word;
		return 0;
	}
	if (file)
		return take_file(w, word, kind, e);
	if (!w->template && !w->image && !w->kernel) {
		w->template = word;
		return 0;
	}
	if (w->create || w->name)
		return err_set(e, EINVAL, "unexpected '%.60s'; %s", word, w->create ? usage_create : usage_run);
	w->name = word;
	return 0;
}

static int note_option(void *opaque, const struct option_def *def, const char *value, struct err *e)
{
	struct run_words *w = opaque;

	w->given_append |= !strcmp(def->name, "append");
	w->given_screen |= !strcmp(def->name, "display") || !strcmp(def->name, "serial");
	w->detach |= !strcmp(def->name, "detach");
	return 0;
}

static int ignore_option(void *opaque, const struct option_def *def, const char *value, struct err *e)
{
	return 0;
}

static int ignore_word(void *opaque, const char *word, struct err *e)
{
	return 0;
}

/* What was given, words left out: "--name value" may be two arguments, so the table decides. */
static int copy_options(struct run_words *w, int argc, char **argv, struct err *e)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		const struct option_def *d = run_options;

		if (argv[i][0] != '-')
			continue;
		if (add(w, argv[i], false, e))
			return -ENOMEM;
		while (d->name && strcmp(argv[i] + 2, d->name))
			d++;
		if (d->name && d->arg && i + 1 < argc && add(w, argv[++i], false, e))
			return -ENOMEM;
	}
	return 0;
}

int run_words_expand(struct run_words *w, int argc, char **argv, bool create, struct err *e)
{
	int r;

	*w = (struct run_words){ .create = create };
	r = add(w, argv[0], false, e);
	if (!r) /* first of all: is the command line right? Then `note` may think so */
		r = options_each(run_options, argc, argv, note_option, ignore_word, w, e);
	if (!r)
		r = options_each(run_options, argc, argv, ignore_option, take_word, w, e);
	if (!r && w->template && (w->image || w->kernel))
		r = err_set(e, EINVAL, "a template and files exclude each other: a disk more is --disk FILE");
	if (!r && w->kernel && !w->given_append)
		r = add_option(w, "append", "console=ttyS0", e);
	if (!r && w->image && !w->kernel && !create && !w->detach && !w->given_screen && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
		r = add_option(w, "display", "text", e);
	if (!r)
		r = copy_options(w, argc, argv, e);
	return r;
}

void run_words_dispose(struct run_words *w)
{
	while (w->nowned)
		free(w->owned[--w->nowned]);
	free(w->owned);
	free(w->argv);
}
