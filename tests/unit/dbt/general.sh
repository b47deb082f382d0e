#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What runs with the guest's vector registers live must not call the C library's functions that use them: general.sh LIBRARY
calls=$(nm -A --undefined-only "$1" 2>/dev/null | grep -E ' U (mem[a-z]*(cpy|set|move|cmp|chr)|bcmp|str[a-z]+|__asan_(memcpy|memset|memmove))(@.*)?$')
nm --defined-only "$1" 2>/dev/null | grep -q ' general_memcpy$' || { echo "no general_memcpy in $1: is this the library?"; exit 1; }
[ -z "$calls" ] || { echo "calls that use vector registers:"; echo "$calls"; exit 1; }
