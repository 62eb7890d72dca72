package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// detour makes packets of some agents to an address take longer. The kernel's own means (netem) may not be
// there: packets go to a TUN device, and this program gives them back later.
type detour struct {
	from   string // agents, separated by spaces
	to     string
	delay  time.Duration
	forges forgery // what is answered on the way, before the server does
}

// detourDevice is the router's end of the way, detourTable the routing table that leads there.
const (
	detourDevice = "detour"
	detourTable  = "100"
)

// slowness is what is on the way: by destination, how long packets to it are kept, and what is forged.
type slowness struct {
	mu  sync.Mutex
	all map[netip.Addr][]detour
}

func (s *slowness) add(d detour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[netip.Addr][]detour{}
	}
	to := netip.MustParseAddr(d.to)
	s.all[to] = append(s.all[to], d)
}

// of is how long a packet is kept, and the reply that is forged to it, or nil.
func (s *slowness) of(packet []byte) (delay time.Duration, reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.all[destination(packet)] {
		delay = max(delay, d.delay)
		if reply == nil {
			reply = d.forges.forge(packet)
		}
	}
	return delay, reply
}

// destination is where an IP packet goes.
func destination(packet []byte) netip.Addr {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20]))
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[24:40]))
	}
	return netip.Addr{}
}

// wireDetour makes the device, and keeps what comes to it for as long as it should.
func (w *world) wireDetour(ctx context.Context) error {
	var tun *os.File
	if err := w.router.Do(func() (err error) {
		tun, err = openTUN(detourDevice)
		return err
	}); err != nil {
		return err
	}
	w.onClose(func() { _ = tun.Close() })
	go func() {
		for {
			packet := make([]byte, 2048)
			n, err := tun.Read(packet)
			if err != nil {
				return // closed
			}
			delay, reply := w.slow.of(packet[:n])
			if reply != nil {
				_, _ = tun.Write(reply)
			}
			time.AfterFunc(delay, func() { _, _ = tun.Write(packet[:n]) }) // as lossy as a network
		}
	}()
	return errors.Join(
		w.router.IP(ctx, "link set "+detourDevice+" up", "route add default dev "+detourDevice+" table "+detourTable, "route add ::/0 dev "+detourDevice+" table "+detourTable),
		w.router.Sysctl(map[string]string{"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/" + detourDevice + "/rp_filter": "0"}),
	)
}

// openTUN makes a device of this name that gives and takes IP packets (Linux, networking/tuntap.rst).
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("a TUN device: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// divert has the packets of a scenario's detours go that way, or (by "del") no more. What comes back from the
// device does not come from an agent's link, and goes on as ever.
func (w *world) divert(ctx context.Context, what string, s scenario) error {
	var batch []string
	for _, d := range s.detours {
		if what == "add" {
			w.slow.add(d)
		}
		for agent := range strings.FieldsSeq(d.from) { // their links to the router have their names
			batch = append(batch, fmt.Sprintf("rule %s iif %s to %s lookup %s", what, agent, d.to, detourTable))
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return w.router.IP(ctx, batch...)
}
