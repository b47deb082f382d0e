/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite ssh: the host's ssh, with the key of ours the guest has been given, through the port of the host that leads to it. The guest's
 * own key is taken at the first time and kept in the machine's folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/file.h"
#include "cli/life.h"
#include "cli/seed.h"

#define SSH_SECONDS 120 /* for a guest that is just starting */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The network stack between takes connections before the guest does: only its greeting says that somebody is there. */
static bool greets(unsigned port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port) };
	int fd _close_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char text[4];

	return fd >= 0 && !connect(fd, (struct sockaddr *)&at, sizeof(at)) && poll(&p, 1, 3000) > 0 &&
	       recv(fd, text, 4, 0) == 4 && !memcmp(text, "SSH-", 4);
}

static int wait_for(struct store_vm *m, unsigned port, int64_t ms, struct err *e)
{
	int64_t end = now_ms() + ms;

	while (!greets(port)) {
		struct store_status st;

		if (store_vm_status(m, &st, e))
			return -EIO;
		if (st.state != STORE_RUNNING)
			return err_set(e, ESRCH, "machine '%s' has ended meanwhile", m->name);
		if (now_ms() > end)
			return err_set(e, ETIMEDOUT, "machine '%s': its ssh server does not answer (does it have one?); 'ospite console %s' shows "
						     "what it does", m->name, m->name);
		usleep(100000);
	}
	return 0;
}

/* The file is ours before ssh writes to it: whoever runs the machine cannot have put a link there, nor can he from now on. */
static int known_hosts(struct store_vm *m, struct err *e)
{
	int fd _close_ = file_open_or_make(m->fd, "known_hosts", O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return err_errno(e, "cannot open known_hosts in the folder of machine '%s'", m->name);
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1)
		return err_set(e, EPERM, "known_hosts in the folder of machine '%s' is not yours: remove it", m->name);
	return 0;
}

static int run_ssh(const struct life_args *a, const char *key, const char *folder, unsigned port, struct err *e)
{
	char known[PATH_MAX + 64], number[16], user[128];
	const char **argv = calloc(a->nwords + 32, sizeof(char *));
	unsigned n = 0;

	if (!argv)
		return err_set(e, ENOMEM, "out of memory");
	snprintf(known, sizeof(known), "UserKnownHostsFile=\"%.4000s/known_hosts\"", folder);
	snprintf(number, sizeof(number), "%u", port);
	snprintf(user, sizeof(user), "%.100s", a->user ? a->user : "root");
	argv[n++] = "ssh";
	argv[n++] = "-i";
	argv[n++] = key;
	argv[n++] = "-p";
	argv[n++] = number;
	argv[n++] = "-l";
	argv[n++] = user;
	argv[n++] = "-o";
	argv[n++] = known;
	argv[n++] = "-o";
	argv[n++] = "StrictHostKeyChecking=accept-new";
	argv[n++] = "-o";
	argv[n++] = "HostKeyAlias=ospite";
	argv[n++] = "-o";
	argv[n++] = "LogLevel=ERROR";
	argv[n++] = "-o";
	argv[n++] = "NoHostAuthenticationForLocalhost=no";
	argv[n++] = "127.0.0.1";
	for (unsigned i = 1; i < a->nwords; i++)
		argv[n++] = a->words[i];
	fflush(NULL);
	execvp("ssh", (char **)argv);
	free(argv);
	return errno == ENOENT ? err_set(e, ENOENT, "there is no ssh here: apt install openssh-client") : err_errno(e, "cannot start ssh");
}

int life_ssh(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	char *text _free_ = NULL, root[PATH_MAX], key[PATH_MAX], folder[PATH_MAX + STORE_NAME + 8];
	struct store_status st;
	struct store_vm m;
	unsigned port = 0;
	int r = store_vm_open(s, a->words[0], &m, e);

	if (r)
		return r;
	r = store_vm_status(&m, &st, e);
	if (!r && st.state != STORE_RUNNING)
		r = err_set(e, ESRCH, "machine '%s' is %s; 'ospite start %s' starts it", m.name, store_state_name(st.state), m.name);
	if (!r && !store_read(m.fd, SEED_PORT, &text, NULL))
		port = (unsigned)strtoul(text, NULL, 10);
	if (!r && (!port || port > 65535))
		r = err_set(e, ENOTSUP, "machine '%s' has no way for ssh: it needs first-boot data (--ssh-key FILE, --hostname NAME, ...) and a user "
					"network", m.name);
	store_root(s, root);
	snprintf(folder, sizeof(folder), "%s/%s", s->path, m.name);
	if (!r)
		r = seed_key(root, key, e);
	if (!r)
		r = wait_for(&m, port, (int64_t)(a->time == UINT64_MAX ? SSH_SECONDS : a->time) * 1000, e);
	if (!r)
		r = known_hosts(&m, e);
	if (!r)
		r = run_ssh(a, key, folder, port, e);
	store_vm_close(&m);
	return r;
}
