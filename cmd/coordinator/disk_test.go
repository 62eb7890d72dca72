package main

import (
	"bytes"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestDisks(t *testing.T) {
	for _, row := range []struct {
		what         string
		kind         uint32
		refuse, warn string
	}{
		{"ext4", 0xef53, "", ""},
		{"NFS", nfs, "NFS", ""},
		{"SMB of version 2", smb2, "SMB", ""},
		{"memory", tmpfs, "", "memory"},
		{"a container's layer", overlay, "", "container"},
	} {
		refuse, warn := disk(row.kind)
		if refuse != row.refuse || !strings.Contains(warn, row.warn) || (warn == "") != (row.warn == "") {
			t.Errorf("%s: %q, %q", row.what, refuse, warn)
		}
	}
}

// TestMemoryIsWarnedOf looks at a directory that is in memory.
func TestMemoryIsWarnedOf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("statfs is asked on Linux alone")
	}
	dir, err := os.MkdirTemp("/dev/shm", "elsewhere-") //nolint:usetesting // it has to be in memory
	if err != nil {
		t.Skipf("no directory in memory: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var said bytes.Buffer
	if err := fitDisk(dir, slog.New(slog.NewTextHandler(&said, nil))); err != nil || !strings.Contains(said.String(), "DOES NOT LAST") {
		t.Errorf("%v, %q", err, said.String())
	}
}

func TestAClockBeforeTheBuild(t *testing.T) {
	built := time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC)
	if err := rightClock(built.Add(-time.Second), built); err == nil || !strings.Contains(err.Error(), "set the clock") {
		t.Errorf("a second before: %v", err)
	}
	for what, at := range map[string]time.Time{"a second after": built.Add(time.Second), "then": built} {
		if err := rightClock(at, built); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := rightClock(built, time.Time{}); err != nil {
		t.Errorf("a build that does not say when: %v", err)
	}
}
