package probe

import (
	"encoding/csv"
	"net/netip"
	"os"
	"testing"
)

// row is a row of IANA's registries.
type row struct {
	prefix netip.Prefix
	name   string
	global bool
}

func registries(t *testing.T) []row {
	t.Helper()
	f, err := os.Open("testdata/special-purpose.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comment = '#'
	records, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for _, record := range records {
		rows = append(rows, row{netip.MustParsePrefix(record[0]), record[1], record[2] == "True"})
	}
	return rows
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	ip, _ := netip.AddrFromSlice(b)
	return ip
}

// TestEveryRowOfTheRegistries: the first and last address of each row, and the ones beside it, are
// admitted as the most specific row that holds them says.
func TestEveryRowOfTheRegistries(t *testing.T) {
	t.Parallel()
	rows := registries(t)
	if len(rows) < 51 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		for _, ip := range []netip.Addr{r.prefix.Addr(), last(r.prefix), r.prefix.Addr().Prev(), last(r.prefix).Next()} {
			if !ip.IsValid() {
				continue
			}
			want := wanted(rows, ip)
			if err := (Egress{}).Check(ip); (err == nil) != want {
				t.Errorf("%s (of or beside %s, %s): %v, want admitted: %v", ip, r.prefix, r.name, err, want)
			}
		}
	}
}

// wanted is the registries' word on an address, with what they leave to other registries: multicast, IPv6
// outside of global unicast, and the IPv4 address inside a mapped or translated one.
func wanted(rows []row, ip netip.Addr) bool {
	if ip.Is4In6() {
		return wanted(rows, ip.Unmap())
	}
	best := row{global: ip.Is4() || globalUnicast.Contains(ip)}
	for _, r := range rows {
		if r.prefix.Contains(ip) && (best.name == "" || r.prefix.Bits() > best.prefix.Bits()) {
			best = r
		}
	}
	if nat64.Contains(ip) {
		b := ip.As16()
		return best.global && wanted(rows, netip.AddrFrom4([4]byte(b[12:])))
	}
	return best.global && !ip.IsMulticast()
}

// TestOurRegistryHasNoMore: what we hold beyond IANA's rows is multicast alone.
func TestOurRegistryHasNoMore(t *testing.T) {
	t.Parallel()
	known := map[netip.Prefix]bool{netip.MustParsePrefix("224.0.0.0/4"): true, netip.MustParsePrefix("ff00::/8"): true}
	for _, r := range registries(t) {
		known[r.prefix] = true
	}
	for _, b := range registry {
		if !known[b.prefix] {
			t.Errorf("%s is in no registry", b.prefix)
		}
	}
}
