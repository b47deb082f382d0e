/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and attributes. A file made by the guest belongs to the guest's user who made it. As root we give it to that user; otherwise
 * it stays ours, and whose it is to the guest is kept in an extended attribute, MAPPED_OWNER; what has none and is ours
 * is the guest root's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "virtio/fs-private.h"

#define MAPPED_OWNER "user.ospite.owner"
#define ATTRIBUTE "user." /* the only ones the guest can reach: others mean something to the host */

bool fs_name_valid(const char *name, size_t len)
{
	return len && len <= NAME_MAX && !memchr(name, '/', len) && !memchr(name, 0, len) && strcmp(name, ".") && strcmp(name, "..");
}

const char *fs_name(const struct fs_request *r, uint32_t at, uint32_t *end)
{
	const char *name = (const char *)r->fs->args + at;
	const char *zero = at < r->args ? memchr(name, 0, r->args - at) : NULL;

	if (!zero || !fs_name_valid(name, (size_t)(zero - name)))
		return NULL;
	if (end)
		*end = at + (uint32_t)(zero - name) + 1;
	return name;
}

/* The path by which calls that take no descriptor of a place reach that very file. */
static int place_path(struct fs *fs, struct fs_node *n, char path[40])
{
	int fd = fs_node_place(fs, n);

	if (fd < 0)
		return fd;
	snprintf(path, 40, "/proc/self/fd/%d", fd);
	return 0;
}

/* The same below fs->proc. */
static int place_name(struct fs *fs, struct fs_node *n, char name[16])
{
	int fd = fs_node_place(fs, n);

	if (fd < 0)
		return fd;
	snprintf(name, 16, "%d", fd);
	return 0;
}

/* ---- owners */

static void owner_read(struct fs *fs, struct fs_node *n, struct fuse_attr *a)
{
	char path[40], text[32];
	ssize_t len = -1;
	unsigned uid, gid;

	if ((S_ISREG(n->type) || S_ISDIR(n->type)) && !place_path(fs, n, path))
		len = getxattr(path, MAPPED_OWNER, text, sizeof(text) - 1);
	if (len > 0) {
		text[len] = 0;
		if (sscanf(text, "%u:%u", &uid, &gid) == 2) {
			a->uid = uid;
			a->gid = gid;
			return;
		}
	}
	if (a->uid == fs->uid)
		a->uid = 0;
	if (a->gid == fs->gid)
		a->gid = 0;
}

/* -1: stays as it is. */
static int owner_write(struct fs *fs, struct fs_node *n, uint32_t uid, uint32_t gid)
{
	struct fuse_attr old = { 0 };
	char path[40], text[32];
	struct stat st;
	int place = fs_node_place(fs, n);

	if (place < 0)
		return place;
	if (!fs->mapped)
		return fchownat(place, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
	if (!S_ISREG(n->type) && !S_ISDIR(n->type))
		return 0; /* has no attributes of its own: stays the guest root's */
	if (fstatat(place, "", &st, AT_EMPTY_PATH))
		return -errno;
	old.uid = st.st_uid;
	old.gid = st.st_gid;
	owner_read(fs, n, &old);
	uid = uid == UINT32_MAX ? old.uid : uid;
	gid = gid == UINT32_MAX ? old.gid : gid;
	if (uid == old.uid && gid == old.gid)
		return 0;
	if (place_path(fs, n, path))
		return -ESTALE;
	snprintf(text, sizeof(text), "%u:%u", uid, gid);
	return setxattr(path, MAPPED_OWNER, text, strlen(text), 0) ? -errno : 0;
}

void fs_attr(struct fs *fs, struct fs_node *n, const struct stat *st, struct fuse_attr *a)
{
	*a = (struct fuse_attr){
		.ino = st->st_ino, .size = (uint64_t)st->st_size, .blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec, .mtime = (uint64_t)st->st_mtim.tv_sec,
		.ctime = (uint64_t)st->st_ctim.tv_sec, .atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtimensec = (uint32_t)st->st_mtim.tv_nsec, .ctimensec = (uint32_t)st->st_ctim.tv_nsec, .mode = st->st_mode,
		.nlink = (uint32_t)st->st_nlink, .uid = st->st_uid, .gid = st->st_gid, .blksize = (uint32_t)st->st_blksize,
		.rdev = (uint32_t)((minor(st->st_rdev) & 0xff) | major(st->st_rdev) << 8 | (minor(st->st_rdev) & ~0xffu) << 12),
	};
	if (fs->mapped)
		owner_read(fs, n, a);
}

void fs_entry(struct fs_request *r, struct fs_node *n, const struct stat *st, struct fuse_entry_out *e)
{
	*e = (struct fuse_entry_out){ .nodeid = n->id, .entry_valid = FS_VALID_SECONDS, .attr_valid = FS_VALID_SECONDS };
	fs_attr(r->fs, n, st, &e->attr);
}

/* ---- looking */

static int look_up(struct fs_request *r, const char *name, struct fs_node **out)
{
	struct fuse_entry_out *e;
	struct stat st;
	int err = fs_node_lookup(r->fs, r->node, name, out, &st);

	if (err)
		return err;
	e = fs_answer(r, sizeof(*e));
	if (!e) {
		fs_node_forget(r->fs, *out, 1);
		return -EINVAL;
	}
	fs_entry(r, *out, &st, e);
	return 0;
}

int fs_lookup(struct fs_request *r)
{
	const char *name = fs_name(r, 0, NULL);
	struct fs_node *n;

	return name ? look_up(r, name, &n) : -EINVAL;
}

static int attr_answer(struct fs_request *r, const struct stat *st)
{
	struct fuse_attr_out *a = fs_answer(r, sizeof(*a));

	if (!a)
		return -EINVAL;
	a->attr_valid = FS_VALID_SECONDS;
	fs_attr(r->fs, r->node, st, &a->attr);
	return 0;
}

int fs_getattr(struct fs_request *r)
{
	const struct fuse_getattr_in *in = FS_ARG(r, fuse_getattr_in);
	struct fs_handle *h = in->getattr_flags & FUSE_GETATTR_FH ? fs_handle_find(r->fs, in->fh, r->node) : NULL;
	int place = h ? h->fd : fs_node_place(r->fs, r->node);
	struct stat st;

	if (place < 0)
		return place;
	if (fstatat(place, "", &st, AT_EMPTY_PATH))
		return -errno;
	return attr_answer(r, &st);
}

static struct timespec when(bool given, bool now, uint64_t seconds, uint32_t ns)
{
	return (struct timespec){ (time_t)seconds, !given ? UTIME_OMIT : now ? UTIME_NOW : MIN(ns, 999999999u) };
}

static int size_set(struct fs_request *r, const struct fuse_setattr_in *in)
{
	struct fs_handle *h = in->valid & FATTR_FH ? fs_handle_find(r->fs, in->fh, r->node) : NULL;
	int fd, err;

	if (in->size > INT64_MAX)
		return -EINVAL;
	if (!S_ISREG(r->node->type))
		return -EINVAL;
	fd = h && (h->flags & O_ACCMODE) != O_RDONLY ? h->fd : fs_node_open(r->fs, r->node, O_WRONLY);
	if (fd < 0)
		return fd;
	err = ftruncate(fd, (off_t)in->size) ? -errno : 0;
	if (!h || fd != h->fd)
		close(fd);
	return err;
}

int fs_setattr(struct fs_request *r)
{
	const struct fuse_setattr_in *in = FS_ARG(r, fuse_setattr_in);
	struct fs *fs = r->fs;
	char name[16];
	struct stat st;
	int err = 0;

	if (in->valid & (FATTR_UID | FATTR_GID))
		err = owner_write(fs, r->node, in->valid & FATTR_UID ? in->uid : UINT32_MAX,
				  in->valid & FATTR_GID ? in->gid : UINT32_MAX);
	if (!err && in->valid & FATTR_MODE) {
		err = S_ISLNK(r->node->type) ? -EOPNOTSUPP : place_name(fs, r->node, name);
		if (!err && fchmodat(fs->proc, name, in->mode & 07777, 0))
			err = -errno;
	}
	if (!err && in->valid & FATTR_SIZE)
		err = size_set(r, in);
	if (!err && in->valid & (FATTR_ATIME | FATTR_MTIME)) {
		struct timespec t[2] = {
			when(in->valid & FATTR_ATIME, in->valid & FATTR_ATIME_NOW, in->atime, in->atimensec),
			when(in->valid & FATTR_MTIME, in->valid & FATTR_MTIME_NOW, in->mtime, in->mtimensec),
		};

		err = place_name(fs, r->node, name);
		if (!err && S_ISLNK(r->node->type))
			err = utimensat(fs_node_place(fs, r->node), "", t, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
		else if (!err && utimensat(fs->proc, name, t, 0))
			err = -errno;
	}
	if (!err && fstatat(fs_node_place(fs, r->node), "", &st, AT_EMPTY_PATH))
		err = -ESTALE;
	return err ? err : attr_answer(r, &st);
}

int fs_readlink(struct fs_request *r)
{
	int place = fs_node_place(r->fs, r->node);
	ssize_t n;

	if (place < 0)
		return place;
	if (!S_ISLNK(r->node->type))
		return -EINVAL;
	n = readlinkat(place, "", (char *)r->fs->data, PATH_MAX);
	if (n < 0)
		return -errno;
	r->answer = (uint32_t)n;
	return 0;
}

/* ---- making */

/*
 * What was just made under `name`: its owner and its permissions (the guest has applied its own umask; ours was applied by the
 * host), then the answer. When that fails the new file is taken away again.
 */
static int made(struct fs_request *r, const char *name, mode_t mode, struct fs_node **out)
{
	struct fs *fs = r->fs;
	struct stat folder, st;
	int err = look_up(r, name, out), place;
	char proc_name[16];

	if (err)
		return err;
	place = fs_node_place(fs, r->node);
	if (place < 0 || fstatat(place, "", &folder, AT_EMPTY_PATH))
		folder.st_mode = 0;
	err = owner_write(fs, *out, r->h.uid, folder.st_mode & S_ISGID ? UINT32_MAX : r->h.gid);
	if (!err && !S_ISLNK((*out)->type)) {
		mode &= 07777;
		if (S_ISDIR((*out)->type) && folder.st_mode & S_ISGID)
			mode |= S_ISGID;
		err = place_name(fs, *out, proc_name);
		if (!err && fchmodat(fs->proc, proc_name, mode, 0))
			err = -errno;
	}
	if (!err && fstatat(fs_node_place(fs, *out), "", &st, AT_EMPTY_PATH))
		err = -ESTALE;
	if (err) {
		unlinkat(fs_node_place(fs, r->node), name, S_ISDIR((*out)->type) ? AT_REMOVEDIR : 0);
		fs_node_forget(fs, *out, 1);
		return err;
	}
	fs_entry(r, *out, &st, (struct fuse_entry_out *)(void *)fs->data);
	return 0;
}

int fs_symlink(struct fs_request *r)
{
	uint32_t target_at;
	const char *name = fs_name(r, 0, &target_at), *target = (const char *)r->fs->args + target_at;
	int place = fs_node_place(r->fs, r->node);
	struct fs_node *n;

	if (!name || target_at >= r->args || !memchr(target, 0, r->args - target_at))
		return -EINVAL;
	if (place < 0)
		return place;
	return symlinkat(target, place, name) ? -errno : made(r, name, 0777, &n);
}

int fs_mknod(struct fs_request *r)
{
	const struct fuse_mknod_in *in = FS_ARG(r, fuse_mknod_in);
	const char *name = fs_name(r, sizeof(*in), NULL);
	int place = fs_node_place(r->fs, r->node);
	struct fs_node *n;

	if (!name)
		return -EINVAL;
	if (place < 0)
		return place;
	if (!S_ISREG(in->mode) && !S_ISFIFO(in->mode) && !S_ISSOCK(in->mode))
		return -EPERM; /* a device of the host's */
	return mknodat(place, name, (in->mode & S_IFMT) | 0600, 0) ? -errno : made(r, name, in->mode, &n);
}

int fs_mkdir(struct fs_request *r)
{
	const struct fuse_mkdir_in *in = FS_ARG(r, fuse_mkdir_in);
	const char *name = fs_name(r, sizeof(*in), NULL);
	int place = fs_node_place(r->fs, r->node);
	struct fs_node *n;

	if (!name)
		return -EINVAL;
	if (place < 0)
		return place;
	return mkdirat(place, name, 0700) ? -errno : made(r, name, in->mode, &n);
}

int fs_create(struct fs_request *r)
{
	const struct fuse_create_in *in = FS_ARG(r, fuse_create_in);
	const char *name = fs_name(r, sizeof(*in), NULL);
	struct fs *fs = r->fs;
	int place = fs_node_place(fs, r->node), fd, err;
	uint32_t flags = in->flags & (O_ACCMODE | O_APPEND | O_DSYNC | O_SYNC);
	struct fuse_open_out *o;
	struct fs_node *n;
	bool exists = false;

	if (!name)
		return -EINVAL;
	if (place < 0)
		return place;
	fd = openat(place, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (int)flags, 0600);
	if (fd < 0 && errno == EEXIST && !(in->flags & O_EXCL))
		exists = true;
	else if (fd < 0)
		return -errno;
	err = exists ? look_up(r, name, &n) : made(r, name, in->mode, &n);
	if (!err && exists) {
		fd = fs_node_open(fs, n, (int)flags | (in->flags & O_TRUNC ? O_TRUNC : 0));
		if (fd < 0 || !S_ISREG(n->type)) {
			err = fd < 0 ? fd : -EISDIR;
			if (fd >= 0)
				close(fd);
			fs_node_forget(fs, n, 1);
		}
	}
	if (err) {
		if (!exists)
			close(fd);
		return err;
	}
	o = (struct fuse_open_out *)(void *)(fs->data + sizeof(struct fuse_entry_out));
	*o = (struct fuse_open_out){ 0 };
	if (r->room < sizeof(struct fuse_entry_out) + sizeof(*o)) {
		close(fd);
		err = -EINVAL;
	} else {
		err = fs_handle_make(fs, n, fd, flags, &o->fh);
	}
	if (err) {
		fs_node_forget(fs, n, 1);
		return err;
	}
	r->answer = sizeof(struct fuse_entry_out) + sizeof(*o);
	return 0;
}

int fs_link(struct fs_request *r)
{
	const struct fuse_link_in *in = FS_ARG(r, fuse_link_in);
	const char *name = fs_name(r, sizeof(*in), NULL);
	struct fs_node *n = fs_node_find(r->fs, in->oldnodeid), *same;
	int place = fs_node_place(r->fs, r->node), err;
	char proc_name[16];

	if (!name || !n)
		return -EINVAL;
	if (place < 0)
		return place;
	if (S_ISDIR(n->type))
		return -EPERM;
	err = place_name(r->fs, n, proc_name);
	if (err)
		return err;
	if (linkat(r->fs->proc, proc_name, place, name, AT_SYMLINK_FOLLOW))
		return -errno;
	return look_up(r, name, &same);
}

/* ---- removing and moving */

static int take_away(struct fs_request *r, int flags)
{
	const char *name = fs_name(r, 0, NULL);
	int place = fs_node_place(r->fs, r->node);

	if (!name)
		return -EINVAL;
	if (place < 0)
		return place;
	return unlinkat(place, name, flags) ? -errno : 0;
}

int fs_unlink(struct fs_request *r)
{
	return take_away(r, 0);
}

int fs_rmdir(struct fs_request *r)
{
	return take_away(r, AT_REMOVEDIR);
}

static int move(struct fs_request *r, uint64_t to, uint32_t flags, uint32_t names)
{
	struct fs *fs = r->fs;
	uint32_t second;
	const char *from_name = fs_name(r, names, &second), *to_name = from_name ? fs_name(r, second, NULL) : NULL;
	struct fs_node *target = fs_node_find(fs, to), *moved = NULL, *other = NULL;
	struct stat st;
	int from, into;

	if (!to_name || !target || flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	from = fs_node_place(fs, r->node);
	into = fs_node_place(fs, target);
	if (from < 0 || into < 0)
		return from < 0 ? from : into;
	if (!fstatat(from, from_name, &st, AT_SYMLINK_NOFOLLOW))
		moved = fs_node_known(fs, &st);
	if (flags & RENAME_EXCHANGE && !fstatat(into, to_name, &st, AT_SYMLINK_NOFOLLOW))
		other = fs_node_known(fs, &st);
	if (renameat2(from, from_name, into, to_name, flags))
		return -errno;
	target->handles++; /* it does not go because it loses one of them before it gets the other */
	if (other)
		fs_node_moved(fs, other, r->node, from_name);
	if (moved)
		fs_node_moved(fs, moved, target, to_name);
	target->handles--;
	fs_node_forget(fs, target, 0);
	return 0;
}

int fs_rename(struct fs_request *r)
{
	return move(r, FS_ARG(r, fuse_rename_in)->newdir, 0, sizeof(struct fuse_rename_in));
}

int fs_rename2(struct fs_request *r)
{
	const struct fuse_rename2_in *in = FS_ARG(r, fuse_rename2_in);

	return move(r, in->newdir, in->flags, sizeof(*in));
}

/* ---- the file system, and extended attributes */

int fs_statfs(struct fs_request *r)
{
	struct fuse_statfs_out *o;
	struct statfs s;

	if (fstatfs(r->fs->root.place, &s))
		return -errno;
	o = fs_answer(r, sizeof(*o));
	if (!o)
		return -EINVAL;
	o->st = (struct fuse_kstatfs){ .blocks = s.f_blocks, .bfree = s.f_bfree, .bavail = s.f_bavail, .files = s.f_files,
				       .ffree = s.f_ffree, .bsize = (uint32_t)s.f_bsize, .namelen = NAME_MAX,
				       .frsize = (uint32_t)s.f_frsize };
	return 0;
}

static const char *attribute_name(const struct fs_request *r, uint32_t at, uint32_t *end)
{
	const char *name = fs_name(r, at, end);

	if (!name || strncmp(name, ATTRIBUTE, sizeof(ATTRIBUTE) - 1) || !strcmp(name, MAPPED_OWNER))
		return NULL;
	return S_ISREG(r->node->type) || S_ISDIR(r->node->type) ? name : NULL;
}

int fs_setxattr(struct fs_request *r)
{
	const struct fuse_setxattr_in *in = FS_ARG(r, fuse_setxattr_in);
	uint32_t value;
	const char *name = attribute_name(r, FUSE_COMPAT_SETXATTR_IN_SIZE, &value);
	char path[40];
	int err;

	if (!name)
		return -EOPNOTSUPP;
	if (in->size > r->args - value)
		return -EINVAL;
	err = place_path(r->fs, r->node, path);
	if (!err && setxattr(path, name, r->fs->args + value, in->size, (int)in->flags & (XATTR_CREATE | XATTR_REPLACE)))
		err = -errno;
	return err;
}

/* `size` is what the guest has room for; 0: it asks how much there is. */
static int attribute_answer(struct fs_request *r, uint32_t size, ssize_t n)
{
	struct fuse_getxattr_out *o;

	if (n < 0)
		return -errno;
	if (!size) {
		o = fs_answer(r, sizeof(*o));
		if (!o)
			return -EINVAL;
		o->size = (uint32_t)n;
		return 0;
	}
	if (n > size)
		return -ERANGE;
	r->answer = (uint32_t)n;
	return 0;
}

int fs_getxattr(struct fs_request *r)
{
	const struct fuse_getxattr_in *in = FS_ARG(r, fuse_getxattr_in);
	const char *name = attribute_name(r, sizeof(*in), NULL);
	char path[40];
	int err = name ? place_path(r->fs, r->node, path) : -EOPNOTSUPP;

	if (err)
		return err;
	return attribute_answer(r, in->size, getxattr(path, name, r->fs->data, XATTR_SIZE_MAX));
}

int fs_listxattr(struct fs_request *r)
{
	const struct fuse_getxattr_in *in = FS_ARG(r, fuse_getxattr_in);
	char path[40], *list = (char *)r->fs->data;
	ssize_t n, kept = 0;
	int err;

	if (!S_ISREG(r->node->type) && !S_ISDIR(r->node->type))
		return attribute_answer(r, in->size, 0);
	err = place_path(r->fs, r->node, path);
	if (err)
		return err;
	n = listxattr(path, list, XATTR_LIST_MAX);
	for (ssize_t at = 0, len; at < n; at += len) {
		len = (ssize_t)strnlen(list + at, (size_t)(n - at)) + 1;
		if (strncmp(list + at, ATTRIBUTE, sizeof(ATTRIBUTE) - 1) || !strcmp(list + at, MAPPED_OWNER))
			continue;
		memmove(list + kept, list + at, (size_t)MIN(len, n - at));
		kept += len;
	}
	return attribute_answer(r, in->size, n < 0 ? n : kept);
}

int fs_removexattr(struct fs_request *r)
{
	const char *name = attribute_name(r, 0, NULL);
	char path[40];
	int err = name ? place_path(r->fs, r->node, path) : -EOPNOTSUPP;

	return err ? err : removexattr(path, name) ? -errno : 0;
}
