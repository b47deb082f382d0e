/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

int main(void)
{
	fputs("ospite: nothing can be run yet\n", stderr);
	return 125;
}
