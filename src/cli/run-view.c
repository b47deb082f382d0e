/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of the host's files the process of a machine goes on seeing (vm/view.h): the machine's folder, the folders of sockets, of the
 * state to be saved and of shares, the kernel it reads at every reset; what `view` in its configuration adds. Disks are open by then;
 * those that come later are opened by the command that brings them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "backend/blk.h"
#include "backend/nbd.h"
#include "cli/run.h"
#include "cli/run-view.h"

static int add_sockets(struct view *v, const struct run_options *o, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < o->pc.nserial && !r; i++)
		if (o->pc.serial[i] && (!strncmp(o->pc.serial[i], "socket:", 7) || !strncmp(o->pc.serial[i], "console:", 8)))
			r = view_add(v, strchr(o->pc.serial[i], ':') + 1, false, true, e);
	for (unsigned i = 0; i < o->pc.nports && !r; i++)
		if (o->pc.port[i].where && (!strncmp(o->pc.port[i].where, "socket:", 7) || !strncmp(o->pc.port[i].where, "console:", 8)))
			r = view_add(v, strchr(o->pc.port[i].where, ':') + 1, false, true, e);
	if (!r && o->pc.vsock)
		r = view_add(v, o->pc.vsock, false, true, e);
	return r;
}

/* Of disks by NBD over a socket in a folder: a connection that breaks is made again. */
static int add_servers(struct view *v, const struct run_options *o, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < o->pc.ndisks && !r; i++) {
		struct nbd_address at;
		struct blk_spec spec;

		if (!o->pc.disk[i].spec || blk_spec_parse(&spec, o->pc.disk[i].spec, NULL))
			continue; /* who opens it says what is wrong */
		if (spec.nbd && !nbd_address_parse(&at, spec.path, NULL) && !at.tcp)
			r = view_add(v, at.path, false, false, e);
		blk_spec_dispose(&spec);
	}
	return r;
}

static int add_files(struct view *v, const struct run_options *o, struct err *e)
{
	const char *const files[] = { o->pc.kernel, o->pc.initrd, o->pc.firmware, o->pc.vga_bios };
	int r = 0;

	for (unsigned i = 0; i < ARRAY_LEN(files) && !r; i++)
		if (files[i])
			r = view_add_file(v, files[i], e);
	for (unsigned i = 0; i < o->pc.nmodules && !r; i++)
		r = view_add_file(v, o->pc.modules[i].path, e);
	for (unsigned i = 0; i < o->nviews && !r; i++)
		r = view_add(v, o->view[i], true, true, e);
	for (unsigned i = 0; i < o->pc.nshares && !r; i++)
		r = view_add(v, o->pc.share[i].path, true, !o->pc.share[i].read_only, e);
	if (!r && o->control)
		r = view_add(v, o->control, false, true, e);
	if (!r && o->save_to)
		r = view_add(v, o->save_to, false, true, e);
	return r;
}

/* The networks' folder, to reach the switches of cards that come; the machine's own. */
static int add_home(struct view *v, const struct run_home *h, const char *root, char own[PATH_MAX], struct err *e)
{
	char path[PATH_MAX + 16];
	int r = 0;

	if (root[0]) {
		snprintf(path, sizeof(path), "%s/networks", root);
		r = view_add(v, path, true, false, e);
	}
	if (r || !h)
		return r;
	if ((size_t)snprintf(own, PATH_MAX, "%s/%s", h->store->path, h->vm->name) >= PATH_MAX)
		return err_set(e, ENAMETOOLONG, "the machine's folder has too long a name");
	return view_add(v, own, true, true, e);
}

static void remove_folder(void *opaque)
{
	struct run_home *h = opaque;
	struct err e = { 0 };

	if (faccessat(h->vm->fd, "saved", F_OK, AT_SYMLINK_NOFOLLOW) && store_vm_remove(h->store, h->vm, &e))
		cli_fail("%s", e.text);
}

/* What is open of folders by descriptor, anew through the folder's mount; the folder of all machines not at all. */
static int reopen(const struct run_home *h, const char *own, struct err *e)
{
	int folder _close_ = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC), none _close_ = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (folder < 0 || none < 0 || dup3(folder, h->vm->fd, O_CLOEXEC) < 0 || dup3(none, h->store->fd, O_CLOEXEC) < 0)
		return err_errno(e, "cannot open %s again", own);
	return fchdir(folder) ? err_errno(e, "cannot go to %s", own) : 0;
}

int run_view_begin(struct view *v, const struct run_options *o, struct run_home *h, const char *root, struct err *e)
{
	char own[PATH_MAX] = "";
	int r;

	v->wanted = !o->unconfined;
#ifdef OSPITE_SANITIZED
	v->wanted = false; /* they look for leaks in another process's /proc */
#endif
	if (v->wanted && geteuid() && o->pc.nshares) {
		v->wanted = false; /* with a user namespace nobody would own what others own in them */
		snprintf(v->why, sizeof(v->why), "a user's shared folders keep their owners");
	}
	if (!h && isatty(STDIN_FILENO)) {
		v->stay = true;
		v->terminal = STDIN_FILENO;
		v->full_screen = o->pc.display && !strcmp(o->pc.display, "text");
	}
	if (h && store_vm_temporary(h->vm)) {
		v->stay = true;
		v->after = remove_folder;
		v->opaque = h;
		v->keep[0] = h->vm->fd;
		v->keep[1] = h->vm->lock;
		v->keep[2] = h->store->fd;
	}
	r = add_home(v, h, root, own, e);
	if (!r)
		r = add_files(v, o, e);
	if (!r)
		r = add_sockets(v, o, e);
	if (!r)
		r = add_servers(v, o, e);
	if (!r)
		r = view_begin(v, e);
	return r || !v->on || !h ? r : reopen(h, own, e);
}
