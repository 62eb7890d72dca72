package cover

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// published is an ip-ranges.json with three origin-facing ranges, two of which touch.
const published = `{
  "syncToken": "1795192386", "createDate": "2026-11-20-16-33-06",
  "prefixes": [
    {"ip_prefix": "203.0.113.0/25", "region": "GLOBAL", "service": "CLOUDFRONT_ORIGIN_FACING", "network_border_group": "GLOBAL"},
    {"ip_prefix": "203.0.113.128/25", "region": "GLOBAL", "service": "CLOUDFRONT_ORIGIN_FACING", "network_border_group": "GLOBAL"},
    {"ip_prefix": "198.51.100.0/24", "region": "GLOBAL", "service": "CLOUDFRONT_ORIGIN_FACING", "network_border_group": "GLOBAL"},
    {"ip_prefix": "192.0.2.0/24", "region": "GLOBAL", "service": "CLOUDFRONT", "network_border_group": "GLOBAL"},
    {"ip_prefix": "10.0.0.0/8", "region": "us-east-1", "service": "AMAZON", "network_border_group": "us-east-1"}
  ],
  "ipv6_prefixes": [
    {"ipv6_prefix": "2001:db8::/32", "region": "GLOBAL", "service": "CLOUDFRONT", "network_border_group": "GLOBAL"}
  ]
}`

// sixToo is the same with an origin-facing range of IPv6.
var sixToo = strings.Replace(published, `"2001:db8::/32", "region": "GLOBAL", "service": "CLOUDFRONT"`, `"2001:db8::/32", "region": "GLOBAL", "service": "CLOUDFRONT_ORIGIN_FACING"`, 1)

// general is the same without origin-facing ranges.
var general = strings.ReplaceAll(published, "CLOUDFRONT_ORIGIN_FACING", "S3")

// group is what describe-security-groups prints of one group with these permissions.
func group(permissions ...string) string {
	return `{"SecurityGroups": [{"GroupId": "sg-1", "GroupName": "web", "IpPermissions": [` + strings.Join(permissions, ", ") + `],
		"IpPermissionsEgress": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}]}`
}

// permission opens ports for what is named.
func permission(protocol, ports, who string) string {
	from, to, _ := strings.Cut(ports, "-")
	return `{"IpProtocol": "` + protocol + `", "FromPort": ` + from + `, "ToPort": ` + to + `, ` + who + `}`
}

const (
	bothRanges = `"IpRanges": [{"CidrIp": "203.0.113.0/24", "Description": "cdn"}, {"CidrIp": "198.51.100.0/24"}]`
	theList    = `"PrefixListIds": [{"PrefixListId": "pl-1"}]`
)

// summary is a report on a few lines.
func summary(r *pb.CoverReport) []string {
	out := []string{strings.ToLower(strings.TrimPrefix(r.GetCoverage().String(), "COVERAGE_"))}
	for _, f := range r.GetFamilies() {
		line := FamilyName(f.GetFamily()) + " " + strings.ToLower(strings.TrimPrefix(f.GetCoverage().String(), "COVERAGE_"))
		if len(f.GetMissing()) > 0 {
			line += " missing " + strings.Join(f.GetMissing(), " ")
		}
		if len(f.GetSurplus()) > 0 {
			line += " surplus " + strings.Join(f.GetSurplus(), " ")
		}
		if len(f.GetWider()) > 0 {
			line += " wider " + strings.Join(f.GetWider(), " ")
		}
		out = append(out, line)
	}
	return out
}

func TestCover(t *testing.T) {
	const noSix = "IPv6 unknown"
	for _, c := range []struct {
		sentence, rules, ranges string
		question                Question
		want                    []string
		warns                   []string // parts of the warnings, in order
	}{
		{
			"a list that holds all", "# the CDN\n203.0.113.0/24\n\n198.51.100.0/24 # its other half\n", published,
			Question{},
			[]string{"full", "IPv4 full", noSix},
			[]string{"whether IPv6 is covered is not known: there is no IPv6 in CLOUDFRONT_ORIGIN_FACING"},
		},
		{
			"halves and wholes are the same", "203.0.113.0/24\n198.51.100.0/25\n198.51.100.128/25", published,
			Question{},
			[]string{"full", "IPv4 full", noSix},
			[]string{"IPv6"},
		},
		{
			"one range is missing, another one too much", "203.0.113.0/24\n192.0.2.7", published,
			Question{},
			[]string{"partial", "IPv4 partial missing 198.51.100.0/24 surplus 192.0.2.7/32", noSix},
			[]string{"IPv6"},
		},
		{
			"a part of a range is missing: the fewest blocks", "203.0.113.0/26\n198.51.100.0/24", published,
			Question{},
			[]string{"partial", "IPv4 partial missing 203.0.113.64/26 203.0.113.128/25", noSix},
			[]string{"IPv6"},
		},
		{
			"nothing of it", "192.0.2.0/24", published,
			Question{},
			[]string{"none", "IPv4 none missing 198.51.100.0/24 203.0.113.0/24 surplus 192.0.2.0/24", noSix},
			[]string{"IPv6"},
		},
		{
			"IPv6 that is published and not admitted", "203.0.113.0/24\n198.51.100.0/24", sixToo,
			Question{},
			[]string{"partial", "IPv4 full", "IPv6 none missing 2001:db8::/32"},
			nil,
		},
		{
			"both families", "203.0.113.0/24\n198.51.100.0/24\n2001:db8::/31", sixToo,
			Question{},
			[]string{"full", "IPv4 full", "IPv6 full surplus 2001:db9::/32 wider 2001:db8::/31"},
			nil,
		},
		{
			"everybody", "0.0.0.0/1\n128.0.0.0/1", strings.NewReplacer("203.0.113.0/25", "0.0.0.0/1", "203.0.113.128/25", "128.0.0.0/2").Replace(published),
			Question{},
			[]string{"full", "IPv4 full surplus 192.0.0.0/6 196.0.0.0/7 198.0.0.0/11 198.32.0.0/12 198.48.0.0/15 198.50.0.0/16 198.51.0.0/18 198.51.64.0/19 198.51.96.0/22 " +
				"198.51.101.0/24 198.51.102.0/23 198.51.104.0/21 198.51.112.0/20 198.51.128.0/17 198.52.0.0/14 198.56.0.0/13 198.64.0.0/10 198.128.0.0/9 199.0.0.0/8 " +
				"200.0.0.0/5 208.0.0.0/4 224.0.0.0/3 wider 0.0.0.0/0", noSix},
			[]string{"everybody is admitted over IPv4 (0.0.0.0/0)", "IPv6"},
		},
		{
			"a file without origin-facing ranges: the general ones, with a warning", "192.0.2.0/24", general,
			Question{},
			[]string{"full", "IPv4 full", noSix},
			[]string{"CLOUDFRONT is taken instead", "there is no IPv6 in CLOUDFRONT."},
		},
		{
			"a plain list of ranges", "192.0.2.0/24\n2001:db8::/32", "192.0.2.0/25\n",
			Question{Provider: "cloudflare"},
			[]string{"full", "IPv4 full surplus 192.0.2.128/25 wider 192.0.2.0/24", noSix},
			[]string{"the ranges hold none of it"},
		},
		{
			"bits beyond the prefix are read as a firewall reads them", "203.0.113.9/24\n198.51.100.0/24", published,
			Question{},
			[]string{"full", "IPv4 full", noSix},
			[]string{"rules:1: 203.0.113.9/24 is read as 203.0.113.0/24", "IPv6"},
		},
		{
			"a group that admits all", group(permission("tcp", "443-443", bothRanges)), published,
			Question{},
			[]string{"full", "IPv4 full", noSix},
			[]string{"IPv6"},
		},
		{
			"by a range of ports, by number of the protocol, by all traffic", group(permission("6", "80-8443", `"IpRanges": [{"CidrIp": "203.0.113.0/24"}]`),
				`{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "198.51.100.0/24"}]}`), published,
			Question{},
			[]string{"full", "IPv4 full", noSix},
			[]string{"IPv6"},
		},
		{
			"another port, another protocol and what goes out do not count", group(permission("tcp", "80-80", bothRanges), permission("udp", "443-443", bothRanges)), published,
			Question{},
			[]string{"none", "IPv4 none missing 198.51.100.0/24 203.0.113.0/24", noSix},
			[]string{"IPv6"},
		},
		{
			"the CDN's prefix list", group(permission("tcp", "443-443", theList)), published,
			Question{Lists: []string{"pl-1"}},
			[]string{"full", "IPv4 full", noSix},
			[]string{"IPv6", "weigh 55 for IPv4, of at most 60; the provider's prefix list, which weighs 55, does not fit a second time (80 and 443)"},
		},
		{
			"the CDN's prefix list, twice: 110 of 60", group(permission("tcp", "443-443", theList), permission("tcp", "80-80", theList)), published,
			Question{Lists: []string{"pl-1"}},
			[]string{"full", "IPv4 full", noSix},
			[]string{"IPv6", "weigh 110 for IPv4, of at most 60"},
		},
		{
			"with a higher quota", group(permission("tcp", "443-443", theList), permission("tcp", "80-80", theList)), published,
			Question{Lists: []string{"pl-1"}, MaxRules: 200},
			[]string{"full", "IPv4 full", noSix},
			[]string{"IPv6"},
		},
		{
			"the prefix list for port 80 alone", group(permission("tcp", "80-80", theList)), published,
			Question{Lists: []string{"pl-1"}},
			[]string{"none", "IPv4 none missing 198.51.100.0/24 203.0.113.0/24", noSix},
			[]string{"IPv6", "does not fit a second time"},
		},
		{
			"a prefix list that is not known may admit what is missing", group(permission("tcp", "443-443", theList)), published,
			Question{},
			[]string{"unknown", "IPv4 unknown missing 198.51.100.0/24 203.0.113.0/24", noSix},
			[]string{"IPv6", "prefix list pl-1: its contents are not known", "what pl-1 weighs is not known"},
		},
		{
			"and does not matter where nothing is missing", group(permission("tcp", "443-443", bothRanges+", "+theList)), published,
			Question{},
			[]string{"full", "IPv4 full", noSix},
			[]string{"IPv6", "prefix list pl-1", "what pl-1 weighs"},
		},
		{
			"the prefix list of IPv6", group(permission("tcp", "443-443", bothRanges+`, "PrefixListIds": [{"PrefixListId": "pl-6"}]`)), sixToo,
			Question{ListsIPv6: []string{"pl-6"}},
			[]string{"full", "IPv4 full", "IPv6 full"},
			[]string{"weigh 55 for IPv6"},
		},
		{
			"missing blocks that do not fit", group(permission("tcp", "22-22", `"IpRanges": [`+strings.Repeat(`{"CidrIp": "10.0.0.0/8"}, `, 59)+`{"CidrIp": "10.0.0.0/8"}]`)), published,
			Question{},
			[]string{"none", "IPv4 none missing 198.51.100.0/24 203.0.113.0/24", noSix},
			[]string{"IPv6", "weigh 60 for IPv4, and the 2 missing blocks make that 62 of at most 60"},
		},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			q := c.question
			q.Port = 443
			if q.MaxRules == 0 {
				q.MaxRules = 60
			}
			if q.Provider == "" {
				q.Provider = "cloudfront"
			}
			ranges, err := ReadRanges("ranges", []byte(c.ranges), q.Provider)
			if err != nil {
				t.Fatal(err)
			}
			rules, err := ReadRules("rules", []byte(c.rules), q)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Report(q, ranges, rules)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, summary(r)); diff != "" {
				t.Error(diff)
			}
			for i, w := range r.GetWarnings() {
				if i >= len(c.warns) || !strings.Contains(w, c.warns[i]) {
					t.Errorf("warning %d: %s", i, w)
				}
			}
			if len(r.GetWarnings()) < len(c.warns) {
				t.Errorf("only %q", r.GetWarnings())
			}
		})
	}
}

func TestGroups(t *testing.T) {
	two := strings.Replace(group(permission("tcp", "443-443", bothRanges)), `"SecurityGroups": [`,
		`"SecurityGroups": [{"GroupId": "sg-2", "GroupName": "db", "IpPermissions": [`+
			permission("tcp", "443-443", `"Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}], "UserIdGroupPairs": [{"GroupId": "sg-1"}]`)+`]}, `, 1)
	rules, err := ReadRules("rules", []byte(two), Question{Port: 443, MaxRules: 60})
	if err != nil {
		t.Fatal(err)
	}
	if len(rules.groups) != 2 || rules.groups[0].GetId() != "sg-1" || len(rules.warnings) != 1 || !strings.Contains(rules.warnings[0], "2 security groups are taken together") {
		t.Errorf("%v, %q", rules.groups, rules.warnings)
	}
	if one, two := rules.groups[0], rules.groups[1]; one.GetWeightIpv4() != 2 || one.GetWeightIpv6() != 0 || two.GetWeightIpv4() != 1 || two.GetWeightIpv6() != 2 {
		t.Errorf("weights of %v and %v", one, two)
	}
	if rules, err = ReadRules("rules", []byte(two), Question{Port: 443, Groups: []string{"sg-2"}}); err != nil || len(rules.groups) != 1 || rules.sets[0] != nil {
		t.Errorf("%v, %v", rules, err)
	}
}

func TestBadRanges(t *testing.T) {
	for name, c := range map[string]struct{ file, provider, want string }{
		"nothing":                      {"", "cloudfront", "ranges: there is no CIDR block in it"},
		"half of JSON":                 {published[:100], "cloudfront", "ranges: this is not JSON, at byte 100"},
		"other JSON":                   {`{"SecurityGroups": []}`, "cloudfront", `there is no "prefixes" in it`},
		"a list of JSON":               {`[]`, "cloudfront", "ranges: the document is of the wrong type, at byte 1: array"},
		"a number for a prefix":        {`{"prefixes": [{"ip_prefix": 1}]}`, "cloudfront", "ip_prefix is of the wrong type"},
		"a prefix that is none":        {strings.Replace(published, "198.51.100.0/24", "198.51.100.0/33", 1), "cloudfront", `prefixes[2].ip_prefix: "198.51.100.0/33" is not a CIDR block`},
		"a prefix of the other family": {strings.Replace(published, "198.51.100.0/24", "2001:db8::/32", 1), "cloudfront", "prefixes[2].ip_prefix: 2001:db8::/32 is of the other family"},
		"a date that is none":          {strings.Replace(published, "2026-11-20-16-33-06", "yesterday", 1), "cloudfront", `createDate "yesterday"`},
		"neither service":              {strings.ReplaceAll(general, "CLOUDFRONT", "EC2"), "cloudfront", "it lists neither CLOUDFRONT_ORIGIN_FACING nor CLOUDFRONT"},
		"another provider's":           {published, "cloudflare", "does not list cloudflare"},
		"a page instead of a list":     {"192.0.2.0/24\n<html>\n", "cloudflare", `ranges:2: "<html>" is not a CIDR block`},
		"IPv4 in IPv6":                 {"::ffff:192.0.2.0/120", "cloudflare", "write it as IPv4"},
		"another encoding":             {"\xff\xfe1\x000\x00", "cloudflare", "ranges: it is not UTF-8"},
		"a zone":                       {"fe80::1%eth0", "cloudflare", "ranges:1: "},
	} {
		if _, err := ReadRanges("ranges", []byte(c.file), c.provider); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestBadRules(t *testing.T) {
	for name, c := range map[string]struct {
		file     string
		question Question
		want     string
	}{
		"no groups":                {`{"SecurityGroups": []}`, Question{}, "there are no SecurityGroups in it"},
		"ranges for rules":         {published, Question{}, "there are no SecurityGroups in it"},
		"a group that is not here": {group(), Question{Groups: []string{"sg-2"}}, `no group "sg-2"; it has sg-1`},
		"a group of a plain list":  {"192.0.2.0/24", Question{Groups: []string{"sg-1"}}, "has neither groups nor prefix lists"},
		"a block that is none":     {group(permission("tcp", "443-443", `"IpRanges": [{"CidrIp": "all"}]`)), Question{}, `group sg-1: IpPermissions[0]: IpRanges[0].CidrIp: "all" is not a CIDR block`},
		"IPv4 among IPv6":          {group(permission("tcp", "443-443", `"Ipv6Ranges": [{"CidrIpv6": "0.0.0.0/0"}]`)), Question{}, "Ipv6Ranges[0].CidrIpv6: 0.0.0.0/0 is of the other family"},
		"a port that is text":      {`{"SecurityGroups": [{"IpPermissions": [{"FromPort": "443"}]}]}`, Question{}, "FromPort is of the wrong type"},
	} {
		if _, err := ReadRules("rules", []byte(c.file), c.question); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzReaders(f *testing.F) {
	for _, seed := range []string{published, sixToo, group(permission("tcp", "443-443", bothRanges+", "+theList)), "203.0.113.0/24\n2001:db8::1 # x\n", "0.0.0.0/0", "::/0"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, ranges, rules string) {
		q := Question{Provider: "cloudfront", Port: 443, Lists: []string{"pl-1"}, MaxRules: 60}
		wanted, err := ReadRanges("ranges", []byte(ranges), q.Provider)
		if err != nil {
			return
		}
		admitted, err := ReadRules("rules", []byte(rules), Question{Port: 443, MaxRules: 60})
		if err != nil {
			return
		}
		r, err := Report(q, wanted, admitted)
		if err != nil {
			t.Fatal(err)
		}
		missing := 0
		for _, f := range r.GetFamilies() {
			missing += len(f.GetMissing())
		}
		if (r.GetCoverage() == pb.Coverage_COVERAGE_FULL) != (missing == 0) {
			t.Errorf("%v with %d missing blocks", r.GetCoverage(), missing)
		}
	})
}
