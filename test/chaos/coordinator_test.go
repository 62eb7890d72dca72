package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// coordinator is one coordinator of the world.
type coordinator struct {
	*program
	ip   string
	disk *disk
}

// newCoordinator is one in a namespace whose link has this number.
func (w *world) newCoordinator(name string, number int) *coordinator {
	c := &coordinator{ip: fmt.Sprintf("10.77.%d.2", number)}
	c.program = &program{w: w, name: name, where: w.space(name), args: func() []string { return w.coordinatorArgs(c) }}
	return c
}

func (c *coordinator) grpcAddr() string   { return c.ip + ":7700" }
func (c *coordinator) httpAddr() string   { return c.ip + ":7701" }
func (c *coordinator) natsAddr() string   { return c.ip + ":7702" }
func (c *coordinator) gossipAddr() string { return c.ip + ":7703" }

// dataDir is where its data are.
func (c *coordinator) dataDir() string { return filepath.Join(c.disk.at, "data") }

// grpcAddrs are those of all coordinators.
func (w *world) grpcAddrs() (all []string) {
	for _, c := range w.coordinators {
		all = append(all, c.grpcAddr())
	}
	return all
}

func (w *world) coordinatorArgs(c *coordinator) []string {
	args := []string{
		filepath.Join(w.bin, "elsewhere-coordinator"), "--data-dir", c.dataDir(),
		"--grpc-addr", c.grpcAddr(), "--nats-addr", c.natsAddr(), "--http-addr", c.httpAddr(),
	}
	if w.several {
		args = append(args, "--id", c.name, "--gossip-addr", c.gossipAddr(), "--gossip-key", w.gossipKey())
		for _, other := range w.coordinators {
			if other != c {
				args = append(args, "--gossip-join", other.gossipAddr())
			}
		}
	}
	if !w.tls {
		args = append(args, "--insecure")
	}
	if w.life > 0 {
		args = append(args, "--agent-certificate-life", w.life.String())
	}
	if w.unsafe {
		args = append(args, "--unsafe-durability")
	}
	return args
}

// gossipKey is the file of the key that coordinators share.
func (w *world) gossipKey() string { return filepath.Join(w.dir, "gossip.key") }

// errEnded says that a coordinator has ended by itself.
var errEnded = errors.New("it has ended")

// startCoordinators starts all coordinators, on the data that are there, and waits until all are ready. Of several the
// first makes the authority, which the others need.
func (w *world) startCoordinators(ctx context.Context) error {
	if w.several {
		if err := w.shareSecrets(ctx); err != nil {
			return err
		}
	}
	for _, c := range w.coordinators {
		if c.cmd == nil { // the first may wait for the others
			if err := c.start(ctx); err != nil {
				return err
			}
		}
	}
	for _, c := range w.coordinators {
		if err := w.ready(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// shareSecrets makes the key of the gossip, starts the first coordinator, and gives the others its authority.
func (w *world) shareSecrets(ctx context.Context) error {
	if err := os.WriteFile(w.gossipKey(), []byte("ZWxzZXdoZXJlIGVsc2V3aGVyZSBlbHNld2hlcmUgISE=\n"), 0o600); err != nil {
		return err
	}
	first := w.coordinators[0]
	if err := first.start(ctx); err != nil {
		return err
	}
	if err := eventually(ctx, "an authority", func(context.Context) error {
		_, err := os.Stat(filepath.Join(first.dataDir(), "ca.pem")) // the key is written before it
		return err
	}); err != nil {
		return err
	}
	for _, c := range w.coordinators[1:] {
		if err := c.trust(first); err != nil {
			return err
		}
	}
	return nil
}

// trust gives a coordinator the authority of another one.
func (c *coordinator) trust(other *coordinator) error {
	if err := os.MkdirAll(c.dataDir(), 0o700); err != nil {
		return err
	}
	for _, name := range []string{"ca.pem", "ca.key"} {
		data, err := os.ReadFile(filepath.Join(other.dataDir(), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.dataDir(), name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// bring starts coordinators, on the data that are there, and waits until they are ready.
func (w *world) bring(ctx context.Context, these ...*coordinator) (err error) {
	for _, c := range these {
		err = errors.Join(err, c.start(ctx))
	}
	for _, c := range these {
		if err == nil {
			err = w.ready(ctx, c)
		}
	}
	return err
}

// killAll kills coordinators at one moment.
func (w *world) killAll(these ...*coordinator) (err error) {
	for _, c := range these {
		err = errors.Join(err, c.signal(syscall.SIGKILL))
	}
	for _, c := range these {
		err = errors.Join(err, c.died(10*time.Second))
	}
	return err
}

// ready waits until a coordinator serves.
func (w *world) ready(ctx context.Context, c *coordinator) error {
	return eventually(ctx, c.name+" to be ready", func(ctx context.Context) error {
		if !c.alive() {
			return errEnded
		}
		return w.healthy(ctx, c)
	})
}

// secret reads a file that every coordinator has, of the first that has it: one may just have lost all that it had.
func (w *world) secret(name string) (data []byte, err error) {
	for _, c := range w.coordinators {
		if data, err = os.ReadFile(filepath.Join(c.dataDir(), name)); err == nil {
			return data, nil
		}
	}
	return nil, err
}

// adminToken is an administrator's.
func (w *world) adminToken() (string, error) {
	token, err := w.secret("admin.token")
	return strings.TrimSpace(string(token)), err
}

// anyCoordinator is one of them.
func (w *world) anyCoordinator(r *rand.Rand) *coordinator {
	return w.coordinators[r.IntN(len(w.coordinators))]
}

func (c *coordinator) machine() machine { return machine{c.program, c.disk} }

// isCoordinator tells whether a program's name is a coordinator's.
func isCoordinator(name string) bool { return name == "coordinator" || strings.HasPrefix(name, "c-") }
