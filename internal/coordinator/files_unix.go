//go:build unix

package coordinator

import "syscall"

// openFiles is how many files the process may have open.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what POSIX systems give as a rule
	}
	return uint64(limit.Cur) //nolint:unconvert // it is an int64 in FreeBSD
}
