/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A password for VNC clients. libneatvnc asks for it only within TLS (VeNCrypt, X509Plain), which takes a certificate: the user's, or
 * one made here for as long as the machine runs. What is made is never in a file: libneatvnc reads it from memory by way
 * of /proc. Whoever connects without looking at the certificate is safe from listeners, not from somebody in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <neatvnc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "base/err.h"
#include "display/vnc-auth.h"

#define YEARS_VALID 10

struct vnc_auth {
	char password[VNC_PASSWORD_MAX + 1];
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
static bool password_right(const char *user, const char *given, void *opaque)
{
	const struct vnc_auth *a = opaque;
	char theirs[sizeof(a->password)] = { 0 };
	size_t len = given ? strlen(given) : sizeof(theirs);
	bool right;

	if (len >= sizeof(theirs))
		return false;
	memcpy(theirs, given, len);
	right = !gnutls_memcmp(theirs, a->password, sizeof(theirs));
	explicit_bzero(theirs, sizeof(theirs));
	return right;
}

/* ---- a certificate of our own */

static int memory_file(const gnutls_datum_t *pem)
{
	int fd = memfd_create("vnc", MFD_CLOEXEC);

	if (fd >= 0 && write(fd, pem->data, pem->size) != (ssize_t)pem->size) {
		close(fd);
		fd = -1;
	}
	return fd;
}

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

/* Descriptors of both, as PEM. */
static int certificate_make(int *crt_fd, int *key_fd)
{
	gnutls_x509_privkey_t key = NULL;
	gnutls_x509_crt_t crt = NULL;
	gnutls_datum_t pem[2] = { 0 };
	int r = gnutls_x509_privkey_init(&key);

	r = r ? r : gnutls_x509_crt_init(&crt);
	r = r ? r : certificate_sign(crt, key);
	r = r ? r : gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem[0]);
	r = r ? r : gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem[1]);
	if (!r) {
		*crt_fd = memory_file(&pem[0]);
		*key_fd = memory_file(&pem[1]);
		r = *crt_fd < 0 || *key_fd < 0 ? GNUTLS_E_MEMORY_ERROR : 0;
	}
	if (pem[1].data)
		explicit_bzero(pem[1].data, pem[1].size);
	gnutls_free(pem[0].data);
	gnutls_free(pem[1].data);
	if (crt)
		gnutls_x509_crt_deinit(crt);
	if (key)
		gnutls_x509_privkey_deinit(key);
	return r;
}

static int enable(struct vnc_auth *a, struct nvnc *server, const char *tls, struct err *e)
{
	char crt[40] = "", key[40] = "";
	int crt_fd _close_ = -1, key_fd _close_ = -1, r;

	if (tls) {
		if (access(tls, R_OK))
			return err_errno(e, "cannot read %.200s", tls);
		return nvnc_enable_auth(server, tls, tls, password_right, a) ?
			       err_set(e, EINVAL, "%.200s: is no certificate followed by its key, as PEM", tls) : 0;
	}
	r = certificate_make(&crt_fd, &key_fd);
	if (r)
		return err_set(e, EIO, "cannot make a certificate: %s", gnutls_strerror(r));
	snprintf(crt, sizeof(crt), "/proc/self/fd/%d", crt_fd);
	snprintf(key, sizeof(key), "/proc/self/fd/%d", key_fd);
	return nvnc_enable_auth(server, key, crt, password_right, a) ? err_set(e, EIO, "libneatvnc does not take the certificate") : 0;
}

struct vnc_auth *vnc_auth_enable(struct nvnc *server, const char *password, const char *tls, struct err *e)
{
	struct vnc_auth *a = NULL;
	int r;

	if (!nvnc_has_auth()) {
		err_set(e, ENOTSUP, "this libneatvnc was built without TLS, and so without passwords");
		return NULL;
	}
	a = calloc(1, sizeof(*a));
	r = a ? password_read(a, password, e) : err_set(e, ENOMEM, "no memory for a password");
	if (!r)
		r = enable(a, server, tls, e);
	if (!r)
		return a;
	vnc_auth_free(a);
	return NULL;
}

void vnc_auth_free(struct vnc_auth *a)
{
	if (a)
		explicit_bzero(a, sizeof(*a));
	free(a);
}
