#!/bin/sh
# system.sh INCLUDE: only core/platform names a header, a call, a constant or a macro of an operating system.
set -eu
cd "$1"
headers=$(find chimera -name '*.hpp' ! -path 'chimera/core/platform/*')
test -n "$headers"

# Standard headers have no suffix; these are the compiler's own, about the processor.
compiler='<(cpuid|[a-z]mmintrin|arm_neon)\.h>'
# In code: what stands behind // is left out.
names='(^|[^A-Za-z0-9_])::(open|close|read|write|stat|unlink|access|rename|mkdir|fork|isatty)\(|\b(mmap|munmap|madvise|posix_madvise|mlock|memmem'
names="$names"'|pthread_\w+|sched_\w+|getrusage|newlocale|strto[df]_l|sysconf|nanosleep|usleep|clock_gettime|gettimeofday|getpid|getauxval|sigaction|dlopen'
names="$names"'|dlsym|fsync|flock|fstat|lstat|ftruncate|fcntl|pread|pwrite|opendir|readdir|ssize_t|off_t'
names="$names"'|O_[A-Z]+|MAP_[A-Z]+|PROT_[A-Z]+|MADV_[A-Z]+|S_IS[A-Z]+|CLOCK_[A-Z]+|HWCAP_\w+|__linux__|__APPLE__|_WIN32'
names="$names"'|__EMSCRIPTEN__|__unix__)\b'

found=$(
  grep -nE '^ *# *include *<[^>]*\.h>' $headers | grep -vE "$compiler" || true
  grep -nE '^ *# *include *<(thread|filesystem|fstream|iostream|csignal)>' $headers || true
  for header in $headers; do sed 's|//.*||' "$header" | grep -nE "$names" | sed "s|^|$header:|" || true; done
)
[ -z "$found" ] && exit 0
echo "of the operating system, outside core/platform:"
echo "$found"
exit 1
