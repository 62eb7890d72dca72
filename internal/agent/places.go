package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elsewhere-net/elsewhere/internal/file"
)

const (
	// placesFile keeps the coordinators that the agent was told of: the one that it was named may be gone when it starts.
	placesFile = "coordinators"
	// maxPlaces bounds those, and maxPlacesFile the file, in bytes.
	maxPlaces, maxPlacesFile = 16, 8 << 10
)

// readPlaces reads the coordinators that the agent was told of. Without the file it was told of none.
func readPlaces(dir string) []string {
	data, err := file.Read(filepath.Join(dir, placesFile), maxPlacesFile)
	if err != nil {
		return nil
	}
	return known(strings.Fields(string(data)))
}

// known are the addresses of a list that can be ones.
func known(list []string) (good []string) {
	for _, hp := range list[:min(len(list), maxPlaces)] {
		if host, port, err := net.SplitHostPort(hp); err == nil && host != "" && port != "" && !slices.Contains(good, hp) {
			good = append(good, hp)
		}
	}
	return good
}

// places are the coordinators: those that the operator named, then those that one of them told of.
func (a *Agent) places() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := slices.Clone(a.opts.Coordinators)
	for _, hp := range a.told {
		if !slices.Contains(all, hp) {
			all = append(all, hp)
		}
	}
	return all
}

// notePlaces takes up where else coordinators are, and keeps it.
func (a *Agent) notePlaces(told []string) {
	told = known(told)
	a.mu.Lock()
	same := slices.Equal(a.told, told)
	if len(told) > 0 {
		a.told = told
	}
	a.mu.Unlock()
	if same || len(told) == 0 {
		return
	}
	if err := file.Replace(filepath.Join(a.opts.DataDir, placesFile), []byte(strings.Join(told, "\n")+"\n")); err != nil {
		a.opts.Log.Warn("the coordinators are not kept for the next start", "error", err)
	}
}

// mayCall says why the agent must not connect to a coordinator that it was told of: as to NATS where it is told that
// that is. The operator's own are always good.
func (a *Agent) mayCall(ctx context.Context, addr string) error {
	if slices.Contains(a.opts.Coordinators, addr) {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err
	}
	may := a.may(ctx)
	for _, ip := range ips {
		at, err := netip.ParseAddrPort(net.JoinHostPort(ip.Unmap().String(), port))
		if err != nil {
			return err
		}
		if err := may(at); err != nil {
			return fmt.Errorf("coordinator %s, of which another one told: %w", addr, err)
		}
	}
	return nil
}
