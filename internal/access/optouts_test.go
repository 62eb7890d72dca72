package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestTheFileOfOptOuts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "opt-outs")
	for _, c := range []struct {
		sentence, text string
		want           []string
		err            string
	}{
		{"nothing", "", nil, ""},
		{"comments and empty lines", "# who asked us\n\n  \t# nobody\n", nil, ""},
		{"one of each, with carriage returns", "shop.example # mail of Monday\r\n192.0.2.1\r\n 2001:db8::/32", []string{"shop.example", "192.0.2.1", "2001:db8::/32"}, ""},
		{"a line that is none", "shop.example\n\nhttps://shop.example/\n", nil, path + ":3: \"https://shop.example/\" is neither"},
		{"two in a line", "a.example b.example\n", nil, path + ":1: "},
		{"more than go with a job", strings.Repeat("a.example\n", 257), nil, path + ": 257 entries; at most 256"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := OpenOptOuts(path)
		if (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %v", c.sentence, err)
		}
		if err != nil {
			continue
		}
		now, _ := w.Current()
		if diff := cmp.Diff(c.want, now.Entries); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.sentence, diff)
		}
	}
}

// TestWhatNamesWhoOptedOut: every host that a question names counts, and none that it does not.
func TestWhatNamesWhoOptedOut(t *testing.T) {
	o, err := parseOptOuts("f", []byte("shop.example\n192.0.2.0/24\n"))
	if err != nil {
		t.Fatal(err)
	}
	for sentence, c := range map[string]struct {
		spec *pb.Spec
		want bool
	}{
		"a lookup of the name":           {&pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "www.Shop.example."}}}, true},
		"a lookup at its server":         {&pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "other.example", Resolver: "ns1.shop.example:5353"}}}, true},
		"a lookup at an address of its":  {&pb.Spec{Check: &pb.Spec_Dns{Dns: &pb.DNSSpec{Name: "other.example", PublicResolvers: []string{"192.0.2.53"}}}}, true},
		"a connection":                   {&pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.1"}}}, true},
		"a handshake":                    {&pb.Spec{Check: &pb.Spec_Tls{Tls: &pb.TLSSpec{Host: "shop.example"}}}, true},
		"a page":                         {&pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "https://192.0.2.1:8443/x"}}}, true},
		"an origin":                      {&pb.Spec{Check: &pb.Spec_Origin{Origin: &pb.OriginSpec{Url: "https://origin.shop.example/"}}}, true},
		"a page whose path has the name": {&pb.Spec{Check: &pb.Spec_Http{Http: &pb.HTTPSpec{Url: "https://other.example/shop.example"}}}, false},
		"a name that only ends like it":  {&pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "workshop.example"}}}, false},
		"an address of the next network": {&pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.3.1"}}}, false},
	} {
		if err := o.Check(c.spec); (err != nil) != c.want {
			t.Errorf("%s: %v", sentence, err)
		}
	}
	if err := (&OptOuts{}).Check(&pb.Spec{Check: &pb.Spec_Tcp{Tcp: &pb.TCPSpec{Host: "192.0.2.1"}}}); err != nil {
		t.Errorf("nobody: %v", err)
	}
}
