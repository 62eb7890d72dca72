package publicdns_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elsewhere-net/elsewhere/internal/fleet"
	"github.com/elsewhere-net/elsewhere/internal/publicdns"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestTheShippedListIsSound(t *testing.T) {
	list, err := publicdns.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	everywhere, seen := 0, map[netip.Addr]string{}
	for _, r := range list {
		if r.GetWhere() == "" {
			everywhere++
		}
		if _, err := fleet.ParseSelector(r.GetWhere()); err != nil {
			t.Errorf("%s: %v", r.GetName(), err)
		}
		if s := r.GetSource(); s.GetDocument() == "" && !s.GetUnverified() || s.GetDocument() != "" && s.GetDate() == "" {
			t.Errorf("%s: neither a document with its date nor marked as unverified", r.GetName())
		}
		for _, text := range r.GetAddresses() {
			addr, err := netip.ParseAddr(text)
			if err != nil || !addr.IsGlobalUnicast() || addr.IsPrivate() || seen[addr] != "" {
				t.Errorf("%s: %s is no public address of its own (%v, %s)", r.GetName(), text, err, seen[addr])
			}
			seen[addr] = r.GetName()
		}
	}
	if len(list) < 15 || everywhere < 5 || everywhere > 10 {
		t.Errorf("%d resolvers, %d of them everywhere", len(list), everywhere)
	}
}

const aList = `
version: 1
resolvers:
  - {name: Both, addresses: ["2001:db8::1", 192.0.2.1, 192.0.2.2]}
  - {name: Six, addresses: ["[2001:db8::2]:5353"]}
  - {name: Ours, where: "CN+AWS,tier=edge", addresses: [192.0.2.3]}
  - {name: Japan, where: Japan, addresses: ["192.0.2.4:5353"]}
`

func parse(t *testing.T, text string) []*pb.PublicResolver {
	t.Helper()
	list, err := publicdns.Parse("list.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAnAgentAsksThoseOfItsPlaceAndFamily(t *testing.T) {
	list := parse(t, aList)
	four, six, any := pb.Family_FAMILY_IPV4, pb.Family_FAMILY_IPV6, pb.Family_FAMILY_UNSPECIFIED
	for name, tc := range map[string]struct {
		vantage *pb.Vantage
		family  pb.Family
		want    []string
	}{
		"an agent of which nothing is known asks those that are for everywhere": {&pb.Vantage{}, any, []string{"192.0.2.1"}},
		"with both families it asks over IPv4":                                  {&pb.Vantage{Ipv4: true, Ipv6: true}, any, []string{"192.0.2.1"}},
		"with IPv6 alone over IPv6":                                             {&pb.Vantage{Ipv6: true}, any, []string{"2001:db8::1", "[2001:db8::2]:5353"}},
		"the family that the question is about comes before what the agent has": {&pb.Vantage{Ipv4: true}, six, []string{"2001:db8::1", "[2001:db8::2]:5353"}},
		"and so does IPv4": {&pb.Vantage{Ipv6: true}, four, []string{"192.0.2.1"}},
		"local ones come first, by the country's name":        {&pb.Vantage{Country: "JP"}, any, []string{"192.0.2.4:5353", "192.0.2.1"}},
		"one term of two is not enough":                       {&pb.Vantage{Country: "CN"}, any, []string{"192.0.2.1"}},
		"both are":                                            {&pb.Vantage{Country: "CN", Provider: "AWS"}, any, []string{"192.0.2.3", "192.0.2.1"}},
		"a label is a place too":                              {&pb.Vantage{Labels: map[string]string{"tier": "edge"}}, any, []string{"192.0.2.3", "192.0.2.1"}},
		"a local one without an address of the family is not": {&pb.Vantage{Country: "JP", Ipv6: true}, any, []string{"2001:db8::1", "[2001:db8::2]:5353"}},
	} {
		if diff := cmp.Diff(tc.want, publicdns.For(list, &pb.Ask{Agent: "a-1", Vantage: tc.vantage}, tc.family)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWhatNobodyAsksIsLeftOutOfAMeasurement(t *testing.T) {
	asks := []*pb.Ask{{Agent: "a", Vantage: &pb.Vantage{Country: "JP"}}, {Agent: "b", Vantage: &pb.Vantage{Ipv4: true}}}
	for want, spec := range map[string]*pb.DNSSpec{
		"":                {Name: "a.example"},
		"Both Japan":      {Name: "a.example", LocalPublicResolvers: true},
		"Ours":            {Name: "a.example", PublicResolvers: []string{"192.0.2.3", "192.0.2.99"}},
		"Both Ours Japan": {Name: "a.example", PublicResolvers: []string{"192.0.2.3:53"}, LocalPublicResolvers: true},
	} {
		var names []string
		for _, r := range publicdns.Asked(parse(t, aList), &pb.Spec{Check: &pb.Spec_Dns{Dns: spec}}, asks) {
			names = append(names, r.GetName())
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%v: %q, want %q", spec, got, want)
		}
	}
}

func TestNoAgentAsksMoreThanSixteen(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nresolvers:\n")
	for i := range 40 {
		where := ""
		if i >= 30 {
			where = "JP"
		}
		fmt.Fprintf(&b, "  - {name: r%d, where: %q, addresses: [192.0.2.%d]}\n", i, where, i)
	}
	got := publicdns.For(parse(t, b.String()), &pb.Ask{Vantage: &pb.Vantage{Country: "JP"}}, pb.Family_FAMILY_UNSPECIFIED)
	if len(got) != 16 || got[0] != "192.0.2.30" || got[9] != "192.0.2.39" || got[10] != "192.0.2.0" {
		t.Errorf("%v; want the ten of Japan, then six of the others", got)
	}
}

func TestAResolverIsKnownByItsAddress(t *testing.T) {
	list := parse(t, aList)
	for address, want := range map[string]string{
		"192.0.2.2:53": "Both", "192.0.2.1:853": "Both", "[2001:db8::1]:53": "Both", "192.0.2.9:53": "",
		"192.0.2.4:5353": "Japan", "192.0.2.4:53": "", "[2001:db8::2]:5353": "Six", "nonsense": "",
	} {
		if got := publicdns.Name(list, address); got != want {
			t.Errorf("%s is %q, want %q", address, got, want)
		}
	}
}

func TestAMistakeIsSaidWithItsLine(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"an unknown field":                      {"version: 1\nresolvers:\n  - name: X\n    adresses: [192.0.2.1]\n", "list.yaml:4:5 unknown field"},
		"a field that is there twice":           {"version: 1\nversion: 1\n", "already defined"},
		"no address":                            {"version: 1\nresolvers:\n  - name: X\n", "list.yaml:3:5 resolvers[0].addresses"},
		"a name for an address":                 {"version: 1\nresolvers:\n  - name: X\n    addresses:\n      - dns.example\n", "list.yaml:5:9 resolvers[0].addresses[0]: must be an IP address"},
		"an address that is there twice in one": {"version: 1\nresolvers:\n  - {name: X, addresses: [192.0.2.1, 192.0.2.1]}\n", "list.yaml:3:"},
		"two of one name":                       {"version: 1\nresolvers:\n  - {name: X, addresses: [192.0.2.1]}\n  - {name: X, addresses: [192.0.2.2]}\n", "two resolvers have the same name"},
		"a place that is empty":                 {"version: 1\nresolvers:\n  - {name: X, where: \"CN,,HK\", addresses: [192.0.2.1]}\n", "must be places such as CN,HK"},
		"a place that is too much":              {"version: 1\nresolvers:\n  - {name: X, where: \"" + strings.Repeat("a,", 80) + "a\", addresses: [192.0.2.1]}\n", "list.yaml:3:"},
		"another version":                       {"version: 2\n", "list.yaml:1:10 version: must equal 1"},
		"no version":                            {"resolvers: []\n", "version: must equal 1"},
		"nothing":                               {"", "it is empty"},
		"comments alone":                        {"# later\n", "it is empty"},
		"a list":                                {"- 1\n", "list.yaml:1:1 expected"},
		"an alias":                              {"version: 1\nresolvers: &a\n  - {name: X, addresses: [192.0.2.1], operator: *a}\n", "contains itself"},
		"two documents":                         {"version: 1\n---\nversion: 1\n", "more than one document"},
		"no YAML":                               {"version: [1\n", "yaml: line"},
		"too much":                              {strings.Repeat("# 1234567\n", 30_000), "larger than 256 KiB"},
		"a control character":                   {"version: 1\nresolvers:\n  - {name: \"a\\eb\", addresses: [192.0.2.1]}\n", "without controls"},
	} {
		_, err := publicdns.Parse("list.yaml", []byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want one line with %q", name, err, tc.want)
		}
	}
}

func TestAListOfNothingIsAList(t *testing.T) {
	if list := parse(t, "version: 1\nresolvers: []\n"); list == nil || len(list) != 0 {
		t.Errorf("%v", list)
	}
}

func TestAFileIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.yaml")
	if err := os.WriteFile(path, []byte(aList), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := publicdns.ReadFile(path)
	if err != nil || len(list) != 4 {
		t.Errorf("%d, %v", len(list), err)
	}
	if _, err := publicdns.ReadFile(path + ".not"); err == nil {
		t.Error("a file that is not there is read")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(aList))
	f.Add([]byte("version: 1\nresolvers: [&a {name: x, addresses: [*a]}]\n"))
	f.Add([]byte("version: 1\r\u2028resolvers: []\r0"))
	f.Add([]byte("--- "))
	f.Add([]byte("version: !!int 1\n---\nversion: 2\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := publicdns.Parse("list.yaml", data)
		if err != nil {
			return
		}
		asks := []*pb.Ask{{Agent: "a", Vantage: &pb.Vantage{Country: "CN", Ipv4: true}}}
		spec := &pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "a.example", LocalPublicResolvers: true}}}
		for _, r := range publicdns.Asked(list, spec, asks) {
			if r.GetName() == "" || len(r.GetAddresses()) == 0 {
				t.Errorf("%v", r)
			}
		}
	})
}
