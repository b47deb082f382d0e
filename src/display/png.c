/* SPDX-License-Identifier: Apache-2.0 */
/* A picture as a PNG file. */
#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/err.h"
#include "display/screen.h"

/* The pixels with what PNG takes for opacity; NULL: no memory. */
static uint32_t *opaque_pixels(const struct surface *s)
{
	size_t pixels = (size_t)s->width * s->height;
	uint32_t *opaque = malloc(pixels * sizeof(*opaque));

	for (size_t i = 0; opaque && i < pixels; i++)
		opaque[i] = s->pixel[i] | 0xff000000u;
	return opaque;
}

int surface_write_png_to(const struct surface *s, int fd, const char *name, struct err *e)
{
	png_image image = { .version = PNG_IMAGE_VERSION, .width = s->width, .height = s->height, .format = PNG_FORMAT_BGRA };
	uint32_t *opaque = opaque_pixels(s);
	FILE *f = fdopen(fd, "wb");
	int r = 0;

	if (!f)
		close(fd);
	if (!f || !opaque)
		r = err_set(e, ENOMEM, "no memory for a picture");
	else if (!png_image_write_to_stdio(&image, f, 0, opaque, 0, NULL))
		r = err_set(e, EIO, "cannot write %s: %s", name, image.message);
	if (f && fclose(f) && !r)
		r = err_errno(e, "cannot write %s", name);
	free(opaque);
	return r;
}

int surface_write_png(const struct surface *s, const char *path, struct err *e)
{
	char *beside;
	int fd, r;

	if (asprintf(&beside, "%s.%d.new", path, (int)getpid()) < 0)
		return err_set(e, ENOMEM, "no memory for a picture");
	fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
	r = fd < 0 ? err_errno(e, "cannot write %s", path) : surface_write_png_to(s, fd, path, e);
	if (!r && rename(beside, path))
		r = err_errno(e, "cannot write %s", path);
	if (r && fd >= 0)
		unlink(beside);
	free(beside);
	return r;
}
