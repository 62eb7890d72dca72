package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// elsewhere runs the command line in the core, as the administrator, and returns what it says.
func (w *world) elsewhere(ctx context.Context, args ...string) (string, error) {
	words := append([]string{filepath.Join(w.bin, "elsewhere")}, args...)
	words = append(words, "--coordinator", strings.Join(w.grpcAddrs(), ","))
	if w.tls {
		words = append(words, "--ca", filepath.Join(w.coordinator.dataDir(), "ca.pem"), "--token", "@"+filepath.Join(w.coordinator.dataDir(), "admin.token"))
	} else {
		words = append(words, "--insecure")
	}
	return w.core.Output(ctx, words...)
}

// logRestored flips bits of the log, and makes the coordinator's data again of a backup, by the commands that an operator
// has. What was acknowledged after the backup would be lost, as is said; so nobody asks anything meanwhile, and no agent
// delivers: all that was acknowledged ever has to be there afterwards.
func logRestored(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	resume, err := w.load.pause(ctx)
	if err != nil {
		return wound{}, err
	}
	file := filepath.Join(w.dir, fmt.Sprintf("backup-%d.tar", r.Uint32()))
	lift := func(ctx context.Context) error {
		resume()
		return errors.Join(w.lift(ctx, "nodelivery"), os.Remove(file))
	}
	if err := w.impose(ctx, "nodelivery", "tcp dport 7700 counter drop", "tcp sport 7700 counter drop"); err != nil {
		resume()
		return wound{}, err
	}
	before, err := w.status(ctx, w.coordinator) // what other faults write after the backup is lost, as is said
	backup := ""
	if err == nil {
		backup, err = w.elsewhere(ctx, "backup", file)
	}
	if err == nil {
		// The checkpoint is a second behind: it has to be beyond the damage.
		err = errors.Join(passing(ctx, 3*time.Second), w.coordinator.kill())
	}
	if err == nil {
		_, err = damage(w.coordinator.dataDir(), r)
	}
	if err != nil {
		return wound{}, errors.Join(err, lift(ctx))
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			said, err := w.refusesToStart(ctx, w.coordinator)
			if err != nil {
				return "", err
			}
			// Its token and its authority are in the backup; the command that restores asks nobody.
			restored, err := w.core.Output(ctx, filepath.Join(w.bin, "elsewhere"), "restore", file, "--data-dir", w.coordinator.dataDir()+".restored")
			if err != nil {
				return "", err
			}
			if err := errors.Join(os.RemoveAll(w.coordinator.dataDir()), os.Rename(w.coordinator.dataDir()+".restored", w.coordinator.dataDir()), w.coordinator.disk.sync(ctx), w.bring(ctx, w.coordinator)); err != nil {
				return "", err
			}
			after, err := w.status(ctx, w.coordinator)
			if err == nil && after.GetPosition() < before.GetPosition() {
				err = fmt.Errorf("the log is at %d, and was at %d", after.GetPosition(), before.GetPosition())
			}
			return fmt.Sprintf("the coordinator said %q; %q; %q", said, firstLine(backup), firstLine(restored)), err
		},
		heal: lift,
	}, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
