package cover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Ranges are where a provider comes from.
type Ranges struct {
	// Service is the list of the file that was taken; "" for a plain list.
	Service string
	// Published is when; zero if the file does not say.
	Published time.Time

	sets     [2]*netipx.IPSet // IPv4 and IPv6; nil: not known
	warnings []string
}

// services are the lists in AWS's ip-ranges.json that a provider comes to origins from, the best first.
func services(provider string) []string {
	if provider == "cloudfront" {
		return []string{"CLOUDFRONT_ORIGIN_FACING", "CLOUDFRONT"}
	}
	return nil
}

// ReadRanges reads the ranges of a provider: AWS's ip-ranges.json, or a plain list of CIDR blocks. path
// is what errors call the file.
func ReadRanges(path string, data []byte, provider string) (*Ranges, error) {
	if isJSON(data) {
		return readAWS(path, data, provider)
	}
	list, warnings, err := readList(path, data)
	if err != nil {
		return nil, err
	}
	r := &Ranges{warnings: warnings}
	for i, is6 := range []bool{false, true} {
		r.sets[i], err = setOf(slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return p.Addr().Is6() != is6 }))
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// awsRanges is ip-ranges.json (AWS, VPC user guide: AWS IP address ranges).
type awsRanges struct {
	CreateDate string `json:"createDate"`
	Prefixes   []struct {
		Prefix  string `json:"ip_prefix"`
		Service string `json:"service"`
	} `json:"prefixes"`
	IPv6Prefixes []struct {
		Prefix  string `json:"ipv6_prefix"`
		Service string `json:"service"`
	} `json:"ipv6_prefixes"`
}

// createDate is the layout of its createDate, in UTC.
const createDate = "2006-01-02-15-04-05"

// readAWS takes the best of the provider's lists that is there. The general one has addresses that
// never come to an origin, and which IPv6 does is then not known.
func readAWS(path string, data []byte, provider string) (*Ranges, error) {
	var doc awsRanges
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, badJSON(path, err)
	}
	if doc.Prefixes == nil {
		return nil, fmt.Errorf(`%s: there is no "prefixes" in it; it is neither AWS's ip-ranges.json nor a plain list of CIDR blocks`, path)
	}
	wanted := services(provider)
	if wanted == nil {
		return nil, fmt.Errorf("%s: AWS's ip-ranges.json does not list %s; give the list that it publishes, a CIDR block a line", path, provider)
	}
	r := &Ranges{}
	var err error
	if r.Published, err = time.Parse(createDate, doc.CreateDate); err != nil && doc.CreateDate != "" {
		return nil, fmt.Errorf("%s: createDate %.40q is not as %s", path, doc.CreateDate, createDate)
	}
	for n, service := range wanted {
		var lists [2][]netip.Prefix
		for i, p := range doc.Prefixes {
			if p.Service == service {
				if lists[0], err = add(lists[0], p.Prefix, true); err != nil {
					return nil, fmt.Errorf("%s: prefixes[%d].ip_prefix: %w", path, i, err)
				}
			}
		}
		for i, p := range doc.IPv6Prefixes {
			if p.Service == service && n == 0 {
				if lists[1], err = add(lists[1], p.Prefix, false); err != nil {
					return nil, fmt.Errorf("%s: ipv6_prefixes[%d].ipv6_prefix: %w", path, i, err)
				}
			}
		}
		if len(lists[0])+len(lists[1]) == 0 {
			continue
		}
		r.Service = service
		if n > 0 {
			r.warnings = append(r.warnings, fmt.Sprintf("%s has no %s; %s is taken instead, which holds addresses that never come to an origin.", path, wanted[0], service))
		}
		return r, errors.Join(r.set(0, lists[0]), r.set(1, lists[1]))
	}
	return nil, fmt.Errorf("%s: it lists neither %s nor %s", path, wanted[0], wanted[1])
}

// set keeps the ranges of a family.
func (r *Ranges) set(family int, list []netip.Prefix) (err error) {
	r.sets[family], err = setOf(list)
	return err
}

// add reads one prefix of a family.
func add(list []netip.Prefix, text string, want4 bool) ([]netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%.60q is not a CIDR block", text)
	case p.Addr().Is4() != want4:
		return nil, fmt.Errorf("%s is of the other family", p)
	}
	return append(list, p.Masked()), nil
}

// setOf joins prefixes; nil for none.
func setOf(list []netip.Prefix) (*netipx.IPSet, error) {
	if len(list) == 0 {
		return nil, nil //nolint:nilnil // none is no error
	}
	var b netipx.IPSetBuilder
	for _, p := range list {
		b.AddPrefix(p)
	}
	return b.IPSet()
}

// families are the address families in the order of reports.
var families = [...]pb.Family{pb.Family_FAMILY_IPV4, pb.Family_FAMILY_IPV6}
