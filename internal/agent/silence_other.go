//go:build !linux

package agent

import "syscall"

// giveUp leaves it to the system when a connection ends that nobody acknowledges.
func giveUp(string, string, syscall.RawConn) error { return nil }
