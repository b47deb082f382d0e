/* SPDX-License-Identifier: Apache-2.0 */
/* A picture as a PNG file. */
#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/err.h"
#include "display/screen.h"

int surface_write_png(const struct surface *s, const char *path, struct err *e)
{
	png_image image = { .version = PNG_IMAGE_VERSION, .width = s->width, .height = s->height, .format = PNG_FORMAT_BGRA };
	char *beside;
	size_t pixels = (size_t)s->width * s->height;
	uint32_t *opaque;
	int r = 0;

	if (asprintf(&beside, "%s.%d.new", path, (int)getpid()) < 0)
		return err_set(e, ENOMEM, "no memory for a picture");
	opaque = malloc(pixels * sizeof(*opaque));
	if (!opaque) {
		free(beside);
		return err_set(e, ENOMEM, "no memory for a picture");
	}
	for (size_t i = 0; i < pixels; i++)
		opaque[i] = s->pixel[i] | 0xff000000u;
	if (!png_image_write_to_file(&image, beside, 0, opaque, 0, NULL)) {
		r = err_set(e, EIO, "cannot write %s: %s", path, image.message);
		unlink(beside);
	} else if (rename(beside, path)) {
		r = err_errno(e, "cannot write %s", path);
		unlink(beside);
	}
	free(opaque);
	free(beside);
	return r;
}
