/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the seed says: meta-data is written so that a shell can read it, one value a line; user-data is what the user gave. An
 * instance-id is made with the machine's first start and stays; a clone gets its own, so its guest takes a new name and new host keys.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cli/seed.h"
#include "store/iso.h"

#define KEY "ssh-key"
#define KEY_LINE 8000
#define PORT_FIRST 20000u /* below those the host's kernel gives to its own connections (from 32768) */
#define PORT_COUNT 12000u

bool seed_wanted(const struct run_options *o)
{
	return o->seed || o->user_data || o->nssh_keys || o->hostname;
}

/* ---- our key */

static int make_key(const char *root, const char *path, struct err *e)
{
	char temp[PATH_MAX + 16], temp_public[PATH_MAX + 24], public[PATH_MAX + 8];
	int status = -1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	pid_t pid;

	snprintf(temp, sizeof(temp), "%.4000s/.new-key", root);
	snprintf(temp_public, sizeof(temp_public), "%s.pub", temp);
	snprintf(public, sizeof(public), "%.4000s.pub", path);
	unlink(temp);
	unlink(temp_public);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		if (null >= 0 && dup2(null, 0) >= 0 && dup2(null, 1) >= 0 && dup2(null, 2) >= 0)
			execlp("ssh-keygen", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ospite", "-f", temp, (char *)NULL);
		_exit(127);
	}
	cleanup_close(&null);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(e, ENOENT, "there is no ssh-keygen: apt install openssh-client");
	if (status || rename(temp_public, public) || rename(temp, path)) /* the private one last: with it there are both */
		return err_set(e, EIO, "cannot make a key for ssh in %.200s", root);
	return 0;
}

int seed_key(const char *root, char path[PATH_MAX], struct err *e)
{
	int lock _close_ = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (snprintf(path, PATH_MAX, "%s/" KEY, root) >= PATH_MAX)
		return err_set(e, ENAMETOOLONG, "the path of the folder of machines is too long");
	if (!access(path, R_OK))
		return 0;
	if (lock < 0 || flock(lock, LOCK_EX))
		return err_errno(e, "cannot lock %.200s", root);
	if (access(path, F_OK))
		r = make_key(root, path, e);
	return r;
}

/* ---- meta-data */

/* A line that is a public key, and nothing but that. */
static bool is_key(const char *line, size_t len)
{
	static const char *const kinds[] = { "ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-" };

	for (size_t i = 0; i < len; i++)
		if (!isprint((unsigned char)line[i]))
			return false;
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
		if (!strncmp(line, kinds[i], strlen(kinds[i])))
			return len < KEY_LINE && memchr(line, ' ', len);
	return false;
}

static int put_keys(FILE *f, int folder, const char *path, struct err *e)
{
	char *text _free_ = NULL;
	int r = store_read(folder, path, &text, e);
	unsigned n = 0;

	if (r)
		return r;
	if (strstr(text, "PRIVATE KEY"))
		return err_set(e, EINVAL, "%.200s is a private key: give the public one, which ends with .pub", path);
	for (const char *line = text; *line;) {
		size_t len = strcspn(line, "\r\n");

		if (len && *line != '#') {
			if (!is_key(line, len))
				return err_set(e, EINVAL, "%.200s has a line that is no public key of ssh", path);
			fprintf(f, "  - %.*s\n", (int)len, line);
			n++;
		}
		line += len;
		line += strspn(line, "\r\n");
	}
	return n ? 0 : err_set(e, EINVAL, "%.200s has no public key in it", path);
}

/* What a host may be called: names of machines may have more. */
static void put_hostname(FILE *f, const char *name)
{
	fputs("local-hostname: ", f);
	for (; *name; name++)
		fputc(isalnum((unsigned char)*name) || *name == '.' ? *name : '-', f);
	fputc('\n', f);
}

struct seed {
	const char *instance, *name;
	const char *own_key; /* NULL or empty: none */
	int folder; /* where relative paths begin */
};

static int put_meta(FILE *f, const struct run_options *o, const struct seed *s, struct err *e)
{
	bool mine = s->own_key && *s->own_key;
	char path[PATH_MAX + 8];
	int r = 0;

	fprintf(f, "instance-id: %s\n", s->instance);
	put_hostname(f, o->hostname ? o->hostname : s->name);
	if (o->nssh_keys || mine)
		fputs("public-keys:\n", f);
	for (unsigned i = 0; i < o->nssh_keys && !r; i++)
		r = put_keys(f, s->folder, o->ssh_key[i], e) ? err_prefix(e, "--ssh-key") : 0;
	if (!r && mine) {
		snprintf(path, sizeof(path), "%.4000s.pub", s->own_key);
		r = put_keys(f, AT_FDCWD, path, e);
	}
	if (o->pc.nshares)
		fputs("ospite-shares:\n", f);
	for (unsigned i = 0; i < o->pc.nshares; i++)
		fprintf(f, "  - %s\n", o->pc.share[i].tag);
	return r;
}

static int build(const struct run_options *o, const struct seed *s, uint8_t **image, size_t *size, struct err *e)
{
	static char nothing[] = "#cloud-config\n{}\n";
	char *user _free_ = NULL, *meta = NULL;
	size_t meta_size;
	FILE *f;
	int r = 0;

	if (o->user_data && store_read(s->folder, o->user_data, &user, e))
		return err_prefix(e, "--user-data");
	f = open_memstream(&meta, &meta_size);
	if (!f)
		return err_set(e, ENOMEM, "out of memory");
	r = put_meta(f, o, s, e);
	if (fclose(f) && !r)
		r = err_set(e, ENOMEM, "out of memory");
	if (!r) {
		const char *text = user ? user : nothing;
		const struct iso_file files[] = { { "meta-data", meta, meta_size }, { "user-data", text, strlen(text) } };

		r = iso_make("cidata", files, ARRAY_LEN(files), image, size, e);
	}
	free(meta);
	return r;
}

/* ---- into the machine */

static int own(struct run_options *o, char *text, struct err *e)
{
	char **more = text ? realloc(o->owned, (o->nowned + 1) * sizeof(char *)) : NULL;

	if (!more) {
		free(text);
		return err_set(e, ENOMEM, "out of memory");
	}
	o->owned = more;
	o->owned[o->nowned++] = text;
	return 0;
}

static int add_disk(struct run_options *o, const char *path, struct err *e)
{
	struct pc_disk *d = &o->pc.disk[o->pc.ndisks];
	char *spec;

	if (o->pc.ndisks == PC_DISKS)
		return err_set(e, E2BIG, "there is no room for the disk with first-boot data: %d disks are the most", PC_DISKS);
	if (own(o, asprintf(&spec, "readonly,format=raw,file=%s", path) < 0 ? NULL : spec, e))
		return -ENOMEM;
	*d = (struct pc_disk){ .spec = spec, .bus = PC_DISK_VIRTIO, .serial = SEED_SERIAL };
	o->pc.ndisks++;
	return 0;
}

/* cloud-init takes seconds to find out that it has nothing to do: guests of ours that it has no user-data for do without it. */
static int tell_guest(struct run_options *o, struct err *e)
{
	char *text;

	if (!o->pc.kernel || o->user_data)
		return 0;
	if (own(o, asprintf(&text, "%s%scloud-init=disabled", o->pc.append ? o->pc.append : "", o->pc.append ? " " : "") < 0 ? NULL : text, e))
		return -ENOMEM;
	o->pc.append = text;
	return 0;
}

static int write_image(int fd, const uint8_t *image, size_t size, struct err *e)
{
	while (size) {
		ssize_t n = write(fd, image, size);

		if (n < 0 && errno != EINTR)
			return err_errno(e, "cannot write first-boot data");
		image += MAX(n, 0);
		size -= (size_t)MAX(n, 0);
	}
	return 0;
}

static int random_hex(char text[17], struct err *e)
{
	uint64_t v;

	if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		return err_errno(e, "no random numbers");
	snprintf(text, 17, "%016llx", (unsigned long long)v);
	return 0;
}

static int instance_of(struct store_vm *m, char id[64], struct err *e)
{
	char *text _free_ = NULL, hex[17];
	int r;

	if (!store_read(m->fd, "instance", &text, NULL) && strlen(text) < 64 && !strncmp(text, "ospite-", 7)) {
		snprintf(id, 64, "%s", text);
		id[strcspn(id, "\n")] = 0;
		return 0;
	}
	r = random_hex(hex, e);
	snprintf(id, 64, "ospite-%s", hex);
	return r ? r : store_write(m->fd, "instance", id, e);
}

static int place_image(struct store_vm *m, const uint8_t *image, size_t size, struct err *e)
{
	int fd, r;

	unlinkat(m->fd, ".seed.tmp", 0);
	fd = openat(m->fd, ".seed.tmp", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, "cannot write first-boot data");
	r = write_image(fd, image, size, e);
	if (close(fd) && !r)
		r = err_errno(e, "cannot write first-boot data");
	if (!r && renameat(m->fd, ".seed.tmp", m->fd, "seed.iso"))
		r = err_errno(e, "cannot write first-boot data");
	return r;
}

/* A port of the loopback interface nobody listens on. Somebody may take it until we do: then the start says so. */
static unsigned free_port(void)
{
	uint32_t start = 0;

	if (getrandom(&start, sizeof(start), 0) != sizeof(start))
		start = (uint32_t)getpid();
	for (unsigned i = 0; i < 200; i++) {
		struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		unsigned port = PORT_FIRST + (start + i) % PORT_COUNT;
		bool ok;

		at.sin_port = htons((uint16_t)port);
		ok = fd >= 0 && !bind(fd, (struct sockaddr *)&at, sizeof(at));
		cleanup_close(&fd);
		if (ok)
			return port;
	}
	return 0;
}

static int add_port(struct run_options *o, struct store_vm *m, struct err *e)
{
	bool user_net = false;
	unsigned port;
	char text[16];

	unlinkat(m->fd, SEED_PORT, 0);
	for (unsigned i = 0; i < o->pc.nnets; i++)
		user_net |= o->pc.net[i].kind == NET_USER;
	if (!user_net || o->pc.nforwards == PC_FORWARDS)
		return 0;
	port = free_port();
	if (!port)
		return 0;
	o->pc.forward[o->pc.nforwards++] = (struct net_forward){ .host = { 127, 0, 0, 1 }, .port = (uint16_t)port, .guest_port = 22 };
	snprintf(text, sizeof(text), "%u\n", port);
	return store_write(m->fd, SEED_PORT, text, e);
}

int seed_prepare(struct run_options *o, struct store *s, struct store_vm *m, struct err *e)
{
	char root[PATH_MAX], key[PATH_MAX] = "", id[64];
	uint8_t *image = NULL;
	size_t size = 0;
	int r;

	if (!seed_wanted(o))
		return 0;
	store_root(s, root);
	r = seed_key(root, key, e);
	if (r == -ENOENT) /* no ssh here: the guest needs no key of ours */
		key[0] = 0, r = 0;
	if (!r)
		r = instance_of(m, id, e);
	if (!r)
		r = build(o, &(struct seed){ id, m->name, key, m->fd }, &image, &size, e);
	if (!r)
		r = place_image(m, image, size, e);
	free(image);
	if (!r)
		r = add_disk(o, "seed.iso", e);
	if (!r)
		r = tell_guest(o, e);
	return r ? r : add_port(o, m, e);
}

int seed_prepare_alone(struct run_options *o, struct err *e)
{
	char hex[17], id[64], path[40];
	uint8_t *image = NULL;
	size_t size = 0;
	int fd, r;

	if (!seed_wanted(o))
		return 0;
	r = random_hex(hex, e);
	snprintf(id, sizeof(id), "ospite-%s", hex);
	if (!r)
		r = build(o, &(struct seed){ id, o->vm.name, NULL, AT_FDCWD }, &image, &size, e);
	if (r)
		return r;
	fd = memfd_create("seed", MFD_CLOEXEC); /* stays open: the disk is opened by this name */
	r = fd < 0 ? err_errno(e, "no memory for first-boot data") : write_image(fd, image, size, e);
	free(image);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (!r)
		r = add_disk(o, path, e);
	return r ? r : tell_guest(o, e);
}
