/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of the host shared with the guest (virtio 1.2, 5.11): FUSE's requests in virtqueues, one for those without an
 * answer that must not wait, one for the rest. A thread of its own takes them one after another, since a file of the host may
 * take its time. See fs-private.h.
 *
 * Locking: the worker holds a queue's lock to take a request and to give it back, none while it works. fs->lock is taken after
 * v->lock and covers `busy`: pausing and resetting wait until the worker rests, and a paused or stopped queue gives it nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mask.h"
#include "virtio/fs-private.h"

#define QUEUE_SIZE 256
#define QUEUES 2 /* urgent, and the others */
#define HEADER ((uint32_t)sizeof(struct fuse_in_header))
#define ANSWER ((uint32_t)sizeof(struct fuse_out_header))
#define MINOR 31u /* the version we speak is 7.31 */
#define PAGES (QUEUE_SIZE - 4u) /* of data in one request */
#define DESCRIPTORS (FS_PLACES + FS_HANDLES + 1024u)

#define OFFERED                                                                                    \
	(FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |            \
	 FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES)

void *fs_answer(struct fs_request *r, uint32_t size)
{
	if (size > r->room)
		return NULL;
	memset(r->fs->data, 0, size);
	r->answer = size;
	return r->fs->data;
}

/* ---- what has to do with the connection */

static int fs_init(struct fs_request *r)
{
	const struct fuse_init_in *in = FS_ARG(r, fuse_init_in);
	struct fuse_init_out *o = fs_answer(r, sizeof(*o));
	uint32_t flags = r->args >= 16 ? in->flags : 0;

	if (!o || in->major < 7)
		return -EPROTO;
	o->major = 7;
	o->minor = MINOR;
	if (in->major > 7) /* it asks again, in our words */
		return 0;
	fs_forget_all(r->fs);
	r->fs->ready = true;
	o->max_readahead = r->args >= 16 ? in->max_readahead : 0;
	o->flags = flags & OFFERED;
	o->max_background = 64;
	o->congestion_threshold = 48;
	o->max_write = PAGES * 4096u;
	o->max_pages = PAGES;
	o->time_gran = 1;
	return 0;
}

static int fs_destroy_connection(struct fs_request *r)
{
	fs_forget_all(r->fs);
	r->fs->ready = false;
	return 0;
}

static void forget(struct fs_request *r)
{
	const struct fuse_batch_forget_in *batch = FS_ARG(r, fuse_batch_forget_in);
	const struct fuse_forget_one *one = (const void *)(batch + 1);
	struct fs_node *n;

	if (r->h.opcode == FUSE_FORGET) {
		n = fs_node_find(r->fs, r->h.nodeid);
		if (n && r->args >= sizeof(struct fuse_forget_in))
			fs_node_forget(r->fs, n, FS_ARG(r, fuse_forget_in)->nlookup);
		return;
	}
	for (uint32_t i = 0; r->args >= sizeof(*batch) && i < batch->count &&
			     i < (r->args - sizeof(*batch)) / sizeof(*one); i++) {
		n = fs_node_find(r->fs, one[i].nodeid);
		if (n)
			fs_node_forget(r->fs, n, one[i].nlookup);
	}
}

/* ---- requests */

static const struct {
	int (*run)(struct fs_request *r);
	uint16_t args; /* at least */
	bool changes, anyhow; /* anyhow: before FUSE_INIT, and whatever node is named */
} table[] = {
	[FUSE_INIT] = { fs_init, 8, .anyhow = true },
	[FUSE_DESTROY] = { fs_destroy_connection, 0, .anyhow = true },
	[FUSE_STATFS] = { fs_statfs, 0, .anyhow = true },
	[FUSE_LOOKUP] = { fs_lookup, 2 },
	[FUSE_GETATTR] = { fs_getattr, sizeof(struct fuse_getattr_in) },
	[FUSE_SETATTR] = { fs_setattr, sizeof(struct fuse_setattr_in), .changes = true },
	[FUSE_READLINK] = { fs_readlink, 0 },
	[FUSE_SYMLINK] = { fs_symlink, 4, .changes = true },
	[FUSE_MKNOD] = { fs_mknod, sizeof(struct fuse_mknod_in), .changes = true },
	[FUSE_MKDIR] = { fs_mkdir, sizeof(struct fuse_mkdir_in), .changes = true },
	[FUSE_UNLINK] = { fs_unlink, 2, .changes = true },
	[FUSE_RMDIR] = { fs_rmdir, 2, .changes = true },
	[FUSE_RENAME] = { fs_rename, sizeof(struct fuse_rename_in), .changes = true },
	[FUSE_RENAME2] = { fs_rename2, sizeof(struct fuse_rename2_in), .changes = true },
	[FUSE_LINK] = { fs_link, sizeof(struct fuse_link_in), .changes = true },
	[FUSE_CREATE] = { fs_create, sizeof(struct fuse_create_in), .changes = true },
	[FUSE_OPEN] = { fs_open, sizeof(struct fuse_open_in) },
	[FUSE_READ] = { fs_read, sizeof(struct fuse_read_in) },
	[FUSE_WRITE] = { fs_write, sizeof(struct fuse_write_in), .changes = true },
	[FUSE_FLUSH] = { fs_flush, sizeof(struct fuse_flush_in) },
	[FUSE_RELEASE] = { fs_release, sizeof(struct fuse_release_in) },
	[FUSE_FSYNC] = { fs_fsync, sizeof(struct fuse_fsync_in) },
	[FUSE_SETXATTR] = { fs_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE, .changes = true },
	[FUSE_GETXATTR] = { fs_getxattr, sizeof(struct fuse_getxattr_in) },
	[FUSE_LISTXATTR] = { fs_listxattr, sizeof(struct fuse_getxattr_in) },
	[FUSE_REMOVEXATTR] = { fs_removexattr, 2, .changes = true },
	[FUSE_OPENDIR] = { fs_opendir, sizeof(struct fuse_open_in) },
	[FUSE_READDIR] = { fs_readdir, sizeof(struct fuse_read_in) },
	[FUSE_READDIRPLUS] = { fs_readdir, sizeof(struct fuse_read_in) },
	[FUSE_RELEASEDIR] = { fs_release, sizeof(struct fuse_release_in) },
	[FUSE_FSYNCDIR] = { fs_fsync, sizeof(struct fuse_fsync_in) },
	[FUSE_LSEEK] = { fs_lseek, sizeof(struct fuse_lseek_in) },
	[FUSE_FALLOCATE] = { fs_fallocate, sizeof(struct fuse_fallocate_in), .changes = true },
	[FUSE_COPY_FILE_RANGE] = { fs_copy, sizeof(struct fuse_copy_file_range_in), .changes = true },
};

static int carry_out(struct fs_request *r)
{
	struct fs *fs = r->fs;
	int err;

	if (r->h.opcode >= ARRAY_LEN(table) || !table[r->h.opcode].run)
		return -ENOSYS;
	if (r->args < table[r->h.opcode].args)
		return -EINVAL;
	if (table[r->h.opcode].anyhow)
		return table[r->h.opcode].run(r);
	r->node = fs->ready ? fs_node_find(fs, r->h.nodeid) : NULL;
	if (!r->node)
		return -ESTALE;
	if (fs->read_only && table[r->h.opcode].changes)
		return -EROFS;
	r->node->handles++;
	err = table[r->h.opcode].run(r);
	r->node->handles--;
	fs_node_forget(fs, r->node, 0);
	return err;
}

/* The chain's request; how many bytes the guest gets. */
uint32_t fs_serve(struct fs *fs, struct virtqueue *vq)
{
	struct fs_request r = { .fs = fs, .vq = vq };
	struct vq_chain *c = &fs->chain;
	struct fuse_out_header o = { 0 };
	int err;

	if (vq_read(c, 0, &r.h, HEADER) != HEADER)
		return 0;
	r.args = (uint32_t)vq_read(c, HEADER, fs->args,
				   r.h.opcode == FUSE_WRITE ? sizeof(struct fuse_write_in) : sizeof(fs->args));
	if (r.h.opcode == FUSE_FORGET || r.h.opcode == FUSE_BATCH_FORGET) {
		forget(&r);
		return 0;
	}
	if (c->in_len < ANSWER || r.h.opcode == FUSE_INTERRUPT)
		return 0;
	r.room = (uint32_t)MIN(c->in_len - ANSWER, (uint64_t)FS_DATA);
	err = carry_out(&r);
	if (err)
		r.answer = r.direct = 0;
	r.answer = MIN(r.answer, r.room);
	o = (struct fuse_out_header){ ANSWER + r.answer + r.direct, err, r.h.unique };
	vq_write(vq, c, 0, &o, ANSWER);
	vq_write(vq, c, ANSWER, fs->data, r.answer);
	return o.len;
}

/* ---- the worker */

static void queue_serve(struct fs *fs, struct virtqueue *vq)
{
	pthread_mutex_lock(&vq->lock);
	do {
		vq_notify_off(vq);
		while (!fs->v.paused && vq_pop(vq, &fs->chain)) {
			uint32_t n;

			pthread_mutex_unlock(&vq->lock);
			n = fs_serve(fs, vq);
			pthread_mutex_lock(&vq->lock);
			vq_push(vq, &fs->chain, n);
			vq_publish(vq); /* the next one may take its time */
		}
		vq_publish(vq);
	} while (!fs->v.paused && vq_notify_on(vq));
	pthread_mutex_unlock(&vq->lock);
}

static void *fs_main(void *opaque)
{
	struct fs *fs = opaque;

	pthread_setname_np(pthread_self(), "ospite-share");
	pthread_mutex_lock(&fs->lock);
	while (!fs->stop) {
		if (!fs->wanted) {
			fs->busy = false;
			pthread_cond_broadcast(&fs->changed);
			pthread_cond_wait(&fs->changed, &fs->lock);
			continue;
		}
		fs->wanted = false;
		fs->busy = true;
		pthread_mutex_unlock(&fs->lock);
		for (unsigned i = 0; i < QUEUES; i++)
			queue_serve(fs, &fs->v.queue[i]);
		pthread_mutex_lock(&fs->lock);
	}
	fs->busy = false;
	pthread_cond_broadcast(&fs->changed);
	pthread_mutex_unlock(&fs->lock);
	return NULL;
}

static void fs_kick(struct virtio *v, struct virtqueue *vq)
{
	struct fs *fs = container_of(v, struct fs, v);

	pthread_mutex_lock(&fs->lock);
	if (!fs->wanted) {
		fs->wanted = true;
		pthread_cond_broadcast(&fs->changed);
	}
	pthread_mutex_unlock(&fs->lock);
}

/* The worker has nothing underway, and finds nothing: the queues are paused or stopped. */
static void fs_rest(struct virtio *v)
{
	struct fs *fs = container_of(v, struct fs, v);

	pthread_mutex_lock(&fs->lock);
	while (fs->busy)
		pthread_cond_wait(&fs->changed, &fs->lock);
	pthread_mutex_unlock(&fs->lock);
}

static void fs_reset(struct virtio *v)
{
	struct fs *fs = container_of(v, struct fs, v);

	fs_rest(v);
	fs_forget_all(fs);
	fs->ready = false;
}

static int fs_save_check(struct virtio *v, struct err *e)
{
	struct fs *fs = container_of(v, struct fs, v);

	return fs_session_size(fs) > sizeof(fs->hw.session) ?
		       err_set(e, E2BIG, "the guest knows too many files of the shared folder %.*s to be saved now: unmount it first, or "
					 "drop its caches (echo 3 >/proc/sys/vm/drop_caches)", FS_TAG, fs->config.tag) :
		       0;
}

static const struct state_field fields[] = {
	STATE_INT(struct fs_hw, ready), STATE_INT(struct fs_hw, nodes), STATE_INT(struct fs_hw, handles),
	STATE_INT(struct fs_hw, used),	STATE_RAW(struct fs_hw, session),
};

static const struct state_desc fs_state = {
	.name = "virtio-fs", .version = 1, .size = sizeof(struct fs_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
};

/* The worker rests in both. */
static void own_saving(struct device *d)
{
	fs_session_save(container_of(d, struct fs, own));
}

static void own_loaded(struct device *d)
{
	fs_session_load(container_of(d, struct fs, own));
}

static void own_destroy(struct device *d)
{
}

static const struct device_ops own_ops = {
	.state = &fs_state, .saving = own_saving, .loaded = own_loaded, .destroy = own_destroy,
};

/* ---- life */

static void fs_destroy(struct virtio *v)
{
	struct fs *fs = container_of(v, struct fs, v);

	if (fs->started) {
		pthread_mutex_lock(&fs->lock);
		fs->stop = true;
		pthread_cond_broadcast(&fs->changed);
		pthread_mutex_unlock(&fs->lock);
		pthread_join(fs->thread, NULL);
	}
	if (fs->slot && fs->slot[0])
		fs_forget_all(fs);
	cleanup_close(&fs->root.place);
	cleanup_close(&fs->proc);
	virtio_dispose(v);
	pthread_mutex_destroy(&fs->lock);
	pthread_cond_destroy(&fs->changed);
	free(fs->slot);
	free(fs->generation);
	free(fs->free_slots);
	free(fs);
}

static const struct virtio_ops ops = {
	.doorbells = true, .kick = fs_kick, .reset = fs_reset, .pause = fs_rest, .save_check = fs_save_check, .destroy = fs_destroy,
};

/* The usual 1024 descriptors are too few for what the guest may have open. */
static void descriptors_raise(void)
{
	struct rlimit r;

	if (!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur < DESCRIPTORS) {
		r.rlim_cur = MIN(r.rlim_max, (rlim_t)DESCRIPTORS);
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static int folder_open(struct fs *fs, const char *path, struct err *e)
{
	struct stat st;

	fs->root.place = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fs->root.place < 0 || fstat(fs->root.place, &st))
		return err_errno(e, "cannot share %s", path);
	fs->root.dev = st.st_dev;
	fs->root.ino = st.st_ino;
	fs->root.type = S_IFDIR;
	fs->proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fs->proc < 0)
		return err_errno(e, "cannot share a folder without /proc/self/fd");
	return 0;
}

static int worker_start(struct fs *fs, struct err *e)
{
	sigset_t all, old;
	int r;

	mask_fill(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&fs->thread, NULL, fs_main, fs);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	fs->started = !r;
	return r ? err_set(e, r, "cannot create a thread for a shared folder: %s", strerrordesc_np(r)) : 0;
}

struct virtio *virtio_fs_create(const struct device_env *env, unsigned instance, const struct virtio_fs_config *c, struct err *e)
{
	struct virtio_setup setup = { .ops = &ops, .name = "virtio-fs", .id = VIRTIO_FS, .nqueues = QUEUES,
				      .queue_size = QUEUE_SIZE, .config_len = sizeof(struct fs_config) };
	struct fs *fs = calloc(1, sizeof(*fs));

	if (!fs) {
		err_set(e, ENOMEM, "no memory for a shared folder");
		return NULL;
	}
	fs->root.place = fs->proc = -1;
	fs->read_only = c->read_only;
	fs->uid = geteuid();
	fs->gid = getegid();
	fs->mapped = fs->uid != 0;
	fs->config.queues = 1;
	memcpy(fs->config.tag, c->tag, strnlen(c->tag, FS_TAG));
	setup.config = &fs->config;
	virtio_init(&fs->v, env, instance, &setup);
	fs->own = (struct device){ .ops = &own_ops, .instance = instance, .hw = &fs->hw };
	fs->v.own = &fs->own;
	pthread_mutex_init(&fs->lock, NULL);
	pthread_cond_init(&fs->changed, NULL);
	fs->slot = calloc(FS_NODES, sizeof(*fs->slot));
	fs->generation = calloc(FS_NODES, sizeof(*fs->generation));
	fs->free_slots = calloc(FS_NODES, sizeof(*fs->free_slots));
	if (!fs->slot || !fs->generation || !fs->free_slots)
		err_set(e, ENOMEM, "no memory for a shared folder");
	else if (!folder_open(fs, c->path, e)) {
		fs_nodes_init(fs);
		descriptors_raise();
		if (!worker_start(fs, e))
			return &fs->v;
	}
	fs_destroy(&fs->v);
	return NULL;
}
