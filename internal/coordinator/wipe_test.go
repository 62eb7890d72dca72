package coordinator_test

import (
	"os"
	"path/filepath"
	"testing"
)

// wipeLog removes the log and leaves the checkpoint of its fold.
func wipeLog(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
}
