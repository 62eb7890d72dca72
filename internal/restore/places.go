package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/backup"
	"github.com/elsewhere-net/elsewhere/internal/bus/embedded"
	"github.com/elsewhere-net/elsewhere/internal/coordinator"
	"github.com/elsewhere-net/elsewhere/internal/identity"
)

const (
	// loopback is where the servers of several coordinators find each other while they are restored, on this machine.
	loopback = "127.0.0.1:0"
	// alikePause is the pause between two looks whether all have the same.
	alikePause = 20 * time.Millisecond
	// alikeTimeout bounds the wait for that.
	alikeTimeout = time.Minute
)

// place is a data directory that is made.
type place struct {
	dir  string
	name string // of the coordinator that it is for; empty: it is alone
}

func places(opts Options) (all []place) {
	for _, name := range opts.Several {
		all = append(all, place{filepath.Join(opts.Dir, name), name})
	}
	if len(all) == 0 {
		all = []place{{dir: opts.Dir}}
	}
	return all
}

// checkNames says what is wrong with the names of several coordinators.
func checkNames(names []string) error {
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		if !identity.IsName(name) {
			return fmt.Errorf("%q cannot be the name of a coordinator: it must be 1 to 63 of a-z, 0-9 and -", name)
		}
		if name == backup.UnfinishedName {
			return fmt.Errorf("%q cannot be the name of a coordinator: a file of the restore is named so", name)
		}
	}
	if different := slices.Compact(slices.Sorted(slices.Values(names))); len(names) != embedded.Members || len(different) != embedded.Members {
		return fmt.Errorf("%s: several coordinators are %d, each with a name of its own, such as c-1,c-2,c-3", strings.Join(names, ","), embedded.Members)
	}
	return nil
}

// divided are the directories within the one that was taken.
func (r *restoring) divided() (dirs []string) {
	for _, p := range r.places {
		if p.name != "" {
			dirs = append(dirs, p.dir)
		}
	}
	return dirs
}

// divide makes them, each with a mark of its own: somebody may copy it before all is done.
func (r *restoring) divide() error {
	for _, p := range r.places {
		if p.name == "" {
			continue
		}
		if _, err := take(p.dir); err != nil {
			return err
		}
		if err := coordinator.Appoint(p.dir, p.name, r.opts.Several); err != nil {
			return err
		}
	}
	return nil
}

// file writes a file of the backup to all places. Each of several coordinators makes its own token of the administrator.
func (r *restoring) file(name string, data []byte) error {
	for _, p := range r.places {
		if p.name != "" && name == backup.AdminFile {
			continue
		}
		if err := os.WriteFile(filepath.Join(p.dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start starts a server for each place. Those of several coordinators know each other by their names for good, and are on
// loopback for now.
func (r *restoring) start() error {
	var routes []string
	if len(r.places) > 1 {
		var err error
		if routes, err = freeAddrs(len(r.places)); err != nil {
			return err
		}
	}
	secret := rand.Text()
	for i, p := range r.places {
		opts := embedded.Options{Dir: p.dir, Addr: loopback, Unsynced: true}
		if p.name != "" {
			opts.Cluster = &embedded.Cluster{Name: p.name, Addr: routes[i], Routes: routes, Secret: secret}
		}
		s, err := embedded.Start(opts)
		if err != nil {
			r.stop()
			return err
		}
		r.servers = append(r.servers, s)
	}
	return nil
}

// freeAddrs are addresses of loopback where nobody listens.
func freeAddrs(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", loopback)
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // when all are found, so that they differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

func (r *restoring) stop() {
	for _, s := range r.servers {
		s.Shutdown()
	}
	r.servers = nil
}

// alike waits until the servers of several coordinators hold as much, each in its own files, and as far. That there is no
// hole is for the fold to see.
func (r *restoring) alike(ctx context.Context) error {
	if len(r.servers) == 1 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, alikeTimeout, errors.New("the copies of the log do not become alike; the machine may be far too busy, or the disk full"))
	defer cancel()
	tick := time.NewTicker(alikePause)
	defer tick.Stop()
	for {
		same, err := r.same()
		if err != nil || same {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// same says whether all servers hold the same now.
func (r *restoring) same() (bool, error) {
	first, err := r.servers[0].Copies()
	if err != nil {
		return false, err
	}
	for _, has := range first {
		if has.Messages > 0 && has.Last < has.First {
			return false, nil
		}
	}
	for _, s := range r.servers[1:] {
		other, err := s.Copies()
		if err != nil || !maps.Equal(first, other) {
			return false, err
		}
	}
	return len(first) > 0, nil
}
