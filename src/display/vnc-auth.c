/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A password for VNC clients, asked for within TLS (VeNCrypt, X509Plain), which takes a certificate: the user's, or one made here
 * for as long as the machine runs and never in a file. Whoever connects without looking at the certificate is safe from listeners, not
 * from somebody in between. libneatvnc could do this too, but its 0.5 uses a client's memory after it refused the password; so
 * it hears of a client only when the password was right, and what the client says passes vnc-filter.c like anybody's.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "base/err.h"
#include "display/vnc-auth.h"
#include "display/vnc-filter.h"
#include "display/vnc-libs.h"

#define YEARS_VALID 10
#define PLAIN_MAX 1024u /* of a user's name, of a password */
#define PATIENCE_S 20
#define REFUSE_US 300000 /* guessing takes its time */

struct vnc_auth {
	char password[VNC_PASSWORD_MAX + 1];
	gnutls_certificate_credentials_t certificate;
};

/* The first line. */
static int password_read(struct vnc_auth *a, const char *path, struct err *e)
{
	int fd _close_ = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	char text[VNC_PASSWORD_MAX + 2] = { 0 };
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	size_t len = strcspn(text, "\r\n");
	int r = 0;

	if (n < 0)
		r = err_errno(e, "cannot read %.200s", path);
	else if (strlen(text) < (size_t)n)
		r = err_set(e, EINVAL, "%.200s: is not text", path);
	else if (!len || len > VNC_PASSWORD_MAX)
		r = err_set(e, EINVAL, "%.200s: its first line, the password, must have 1 to %d bytes", path, VNC_PASSWORD_MAX);
	else
		memcpy(a->password, text, len);
	explicit_bzero(text, sizeof(text));
	return r;
}

/* Takes the same time wherever they differ. */
static bool password_right(const struct vnc_auth *a, const char *given)
{
	char theirs[sizeof(a->password)] = { 0 };
	size_t len = strlen(given);
	bool right;

	if (len >= sizeof(theirs))
		return false;
	memcpy(theirs, given, len);
	right = !gnutls_memcmp(theirs, a->password, sizeof(theirs));
	explicit_bzero(theirs, sizeof(theirs));
	return right;
}

/* ---- a certificate of our own */

static int certificate_sign(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key)
{
	time_t now = time(NULL);
	uint8_t serial[8];
	int r = gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);

	if (getrandom(serial, sizeof(serial), GRND_NONBLOCK) != sizeof(serial))
		return GNUTLS_E_RANDOM_FAILED;
	serial[0] &= 0x7f;
	r = r ? r : gnutls_x509_crt_set_version(crt, 3);
	r = r ? r : gnutls_x509_crt_set_serial(crt, serial, sizeof(serial));
	r = r ? r : gnutls_x509_crt_set_activation_time(crt, now - 86400);
	r = r ? r : gnutls_x509_crt_set_expiration_time(crt, now + YEARS_VALID * 365ll * 86400);
	r = r ? r : gnutls_x509_crt_set_dn(crt, "CN=ospite", NULL);
	r = r ? r : gnutls_x509_crt_set_key(crt, key);
	return r ? r : gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0);
}

/* A new one, for as long as the machine runs. */
static int certificate_make(gnutls_certificate_credentials_t to)
{
	gnutls_x509_privkey_t key = NULL;
	gnutls_x509_crt_t crt = NULL;
	int r = gnutls_x509_privkey_init(&key);

	r = r ? r : gnutls_x509_crt_init(&crt);
	r = r ? r : certificate_sign(crt, key);
	r = r ? r : gnutls_certificate_set_x509_key(to, &crt, 1, key);
	if (crt)
		gnutls_x509_crt_deinit(crt);
	if (key)
		gnutls_x509_privkey_deinit(key);
	return r;
}

static int certificate_set(struct vnc_auth *a, const char *tls, struct err *e)
{
	int r = gnutls_certificate_allocate_credentials(&a->certificate);

	if (!r && tls && access(tls, R_OK))
		return err_errno(e, "cannot read %.200s", tls);
	if (!r && tls)
		return gnutls_certificate_set_x509_key_file(a->certificate, tls, tls, GNUTLS_X509_FMT_PEM) < 0 ?
			       err_set(e, EINVAL, "%.200s: is no certificate followed by its key, as PEM", tls) : 0;
	r = r ? r : certificate_make(a->certificate);
	return r ? err_set(e, EIO, "cannot make a certificate: %s", gnutls_strerror(r)) : 0;
}

/* Else the library sets itself up in every process that is linked to it: 3 ms and 0.15 MiB for machines without a password. */
GNUTLS_SKIP_GLOBAL_INIT

struct vnc_auth *vnc_auth_create(const char *password, const char *tls, struct err *e)
{
	struct vnc_auth *a = calloc(1, sizeof(*a));
	int r = a ? password_read(a, password, e) : err_set(e, ENOMEM, "no memory for a password");

	if (!r)
		r = vnc_libs_load(e);
	if (!r && gnutls_global_init() < 0)
		r = err_set(e, EIO, "cannot set up TLS");
	if (!r)
		r = certificate_set(a, tls, e);
	if (!r)
		return a;
	vnc_auth_free(a);
	return NULL;
}

void vnc_auth_free(struct vnc_auth *a)
{
	if (!a)
		return;
	if (a->certificate)
		gnutls_certificate_free_credentials(a->certificate);
	explicit_bzero(a, sizeof(*a));
	free(a);
}

/* ---- a client */

struct vnc_session {
	gnutls_session_t tls;
};

static bool tell(int fd, const void *data, size_t n)
{
	return send(fd, data, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool hear(int fd, void *data, size_t n)
{
	return recv(fd, data, n, MSG_WAITALL) == (ssize_t)n;
}

/* Is the answer this? */
static bool hears(int fd, const void *want, size_t n)
{
	uint8_t got[16];

	return hear(fd, got, n) && !memcmp(got, want, n);
}

/* RFB 3.8 with VeNCrypt 0.2 and X509Plain as the only choice. */
static bool greet(int fd)
{
	return tell(fd, VNC_VERSION, 12) && hears(fd, VNC_VERSION, 12) && tell(fd, "\1\23", 2) && hears(fd, "\23", 1) &&
	       tell(fd, "\0\2", 2) && hears(fd, "\0\2", 2) && tell(fd, "\0\1\0\0\1\6", 6) && hears(fd, "\0\0\1\6", 4) &&
	       tell(fd, "\1", 1);
}

static bool secret_hear(struct vnc_session *s, void *data, size_t n)
{
	uint8_t *to = data;

	while (n) {
		ssize_t got = vnc_session_recv(s, to, n);

		if (got <= 0)
			return false;
		to += got;
		n -= (size_t)got;
	}
	return true;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Any user's name will do. */
static bool password_hear(const struct vnc_auth *a, struct vnc_session *s)
{
	uint8_t sizes[8], user[PLAIN_MAX];
	char given[PLAIN_MAX + 1];
	uint32_t len;
	bool right;

	if (!secret_hear(s, sizes, 8) || be32(sizes) > PLAIN_MAX || be32(sizes + 4) > PLAIN_MAX)
		return false;
	len = be32(sizes + 4);
	if (!secret_hear(s, user, be32(sizes)) || !secret_hear(s, given, len))
		return false;
	given[len] = 0;
	right = strlen(given) == len && password_right(a, given);
	explicit_bzero(given, sizeof(given));
	return right;
}

static bool admit(const struct vnc_auth *a, struct vnc_session *s)
{
	static const char no[] = "\0\0\0\1\0\0\0\23the password is bad";
	int r;

	gnutls_handshake_set_timeout(s->tls, PATIENCE_S * 1000);
	do
		r = gnutls_handshake(s->tls);
	while (r < 0 && !gnutls_error_is_fatal(r));
	if (r < 0)
		return false;
	if (password_hear(a, s))
		return true; /* that it is right the client hears from the server behind us */
	usleep(REFUSE_US);
	vnc_session_send(s, no, sizeof(no) - 1);
	gnutls_bye(s->tls, GNUTLS_SHUT_WR);
	return false;
}

static void patience(int fd, int seconds)
{
	struct timeval t = { .tv_sec = seconds };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

struct vnc_session *vnc_auth_admit(const struct vnc_auth *a, int client)
{
	struct vnc_session *s = calloc(1, sizeof(*s));
	bool admitted = false;

	patience(client, PATIENCE_S);
	if (s && greet(client) && !gnutls_init(&s->tls, GNUTLS_SERVER | GNUTLS_NO_SIGNAL)) {
		gnutls_credentials_set(s->tls, GNUTLS_CRD_CERTIFICATE, a->certificate);
		gnutls_transport_set_int(s->tls, client);
		admitted = !gnutls_set_default_priority(s->tls) && admit(a, s);
	}
	patience(client, 0);
	if (admitted)
		return s;
	vnc_session_free(s);
	return NULL;
}

void vnc_session_free(struct vnc_session *s)
{
	if (s && s->tls)
		gnutls_deinit(s->tls);
	free(s);
}

ssize_t vnc_session_recv(struct vnc_session *s, void *data, size_t n)
{
	ssize_t got;

	do
		got = gnutls_record_recv(s->tls, data, n);
	while (got == GNUTLS_E_INTERRUPTED || got == GNUTLS_E_AGAIN);
	return got;
}

bool vnc_session_send(struct vnc_session *s, const void *data, size_t n)
{
	const uint8_t *from = data;

	while (n) {
		ssize_t done = gnutls_record_send(s->tls, from, n);

		if (done == GNUTLS_E_INTERRUPTED || done == GNUTLS_E_AGAIN)
			continue;
		if (done <= 0)
			return false;
		from += done;
		n -= (size_t)done;
	}
	return true;
}
