//go:build !unix

package spool

import (
	"fmt"
	"os"
)

// lock opens the file; this system has no flock(2), and two agents in one directory are not noticed.
func lock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return f, nil
}
