package cover

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// listWeight is what CloudFront's managed prefix list weighs among the rules of a security group (AWS,
// VPC user guide: AWS-managed prefix lists).
const listWeight = 55

// Question is what is asked of firewall rules.
type Question struct {
	// Provider is who should get in, by the name of a profile.
	Provider string
	// Port is the TCP port, 1 to 65535.
	Port uint16
	// Groups are the ids of the security groups to look at. Default: all of the file.
	Groups []string
	// Lists are the ids of prefix lists that hold all of the provider's ranges of IPv4; ListsIPv6 of IPv6.
	Lists, ListsIPv6 []string
	// MaxRules is what the rules of a group may weigh, for each family.
	MaxRules int
}

// Rules are what a firewall admits.
type Rules struct {
	sets     [2]*netipx.IPSet // what is admitted by address; nil: nothing is
	lists    [2]bool          // whether the provider's prefix list is admitted too
	unknown  []string         // other prefix lists that are admitted
	groups   []*pb.SecurityGroup
	listed   map[string]*[2]bool // by group: whether the provider's prefix list stands in it, for any port
	warnings []string
}

// ReadRules reads firewall rules: what `aws ec2 describe-security-groups` prints, or a plain list of
// CIDR blocks. path is what errors call the file.
func ReadRules(path string, data []byte, q Question) (*Rules, error) {
	if isJSON(data) {
		return readGroups(path, data, q)
	}
	if len(q.Groups)+len(q.Lists)+len(q.ListsIPv6) > 0 {
		return nil, fmt.Errorf("%s is a plain list of CIDR blocks, which has neither groups nor prefix lists", path)
	}
	list, warnings, err := readList(path, data)
	if err != nil {
		return nil, err
	}
	r := &Rules{warnings: warnings}
	return r, r.admit(list)
}

// awsGroups is what describe-security-groups prints, as far as it matters.
type awsGroups struct {
	SecurityGroups []awsGroup
}

type awsGroup struct {
	GroupId, GroupName string
	IpPermissions      []awsPermission
}

type awsPermission struct {
	IpProtocol       string
	FromPort, ToPort *int
	IpRanges         []struct{ CidrIp string }
	Ipv6Ranges       []struct{ CidrIpv6 string }
	PrefixListIds    []struct{ PrefixListId string }
	UserIdGroupPairs []struct{ GroupId string }
}

// opens says whether a permission is about the TCP port. Protocol -1 is all traffic, and has no ports.
func (p awsPermission) opens(port uint16) bool {
	switch p.IpProtocol {
	case "-1":
		return true
	case "tcp", "6":
	default:
		return false
	}
	if p.FromPort == nil || p.ToPort == nil || *p.FromPort == -1 {
		return true
	}
	return *p.FromPort <= int(port) && int(port) <= *p.ToPort
}

// readGroups reads security groups. Several of them are taken together, as if all stood in front of
// the origin.
func readGroups(path string, data []byte, q Question) (*Rules, error) {
	var doc awsGroups
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, badJSON(path, err)
	}
	if len(doc.SecurityGroups) == 0 {
		return nil, fmt.Errorf("%s: there are no SecurityGroups in it; it is neither what 'aws ec2 describe-security-groups' prints nor a plain list of CIDR blocks", path)
	}
	groups, err := choose(path, doc.SecurityGroups, q.Groups)
	if err != nil {
		return nil, err
	}
	r := &Rules{listed: map[string]*[2]bool{}}
	var admitted []netip.Prefix
	for _, g := range groups {
		one := &pb.SecurityGroup{Id: g.GroupId, Name: g.GroupName, MaxWeight: int32(q.MaxRules)}
		for i, p := range g.IpPermissions {
			blocks, err := p.blocks()
			if err != nil {
				return nil, fmt.Errorf("%s: group %s: IpPermissions[%d]: %w", path, g.GroupId, i, err)
			}
			r.weigh(one, p, q)
			if p.opens(q.Port) {
				admitted = append(admitted, blocks...)
				r.admitLists(p, q)
			}
		}
		r.groups = append(r.groups, one)
	}
	slices.SortFunc(r.groups, func(a, b *pb.SecurityGroup) int { return cmp.Compare(a.GetId(), b.GetId()) })
	slices.Sort(r.unknown)
	r.unknown = slices.Compact(r.unknown)
	if len(groups) > 1 {
		r.warnings = append(r.warnings, fmt.Sprintf("%d security groups are taken together, as if all of them stood in front of the origin; --group takes one.", len(groups)))
	}
	return r, r.admit(admitted)
}

// choose takes the groups that are asked for, or all.
func choose(path string, all []awsGroup, ids []string) ([]awsGroup, error) {
	for _, id := range ids {
		if !slices.ContainsFunc(all, func(g awsGroup) bool { return g.GroupId == id }) {
			var known []string
			for _, g := range all[:min(len(all), maxWarnings)] {
				known = append(known, g.GroupId)
			}
			return nil, fmt.Errorf("%s has no group %q; it has %s", path, id, strings.Join(known, ", "))
		}
	}
	if len(ids) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(g awsGroup) bool { return !slices.Contains(ids, g.GroupId) }), nil
}

// blocks are the CIDR blocks of a permission.
func (p awsPermission) blocks() (list []netip.Prefix, err error) {
	for i, one := range p.IpRanges {
		if list, err = add(list, one.CidrIp, true); err != nil {
			return nil, fmt.Errorf("IpRanges[%d].CidrIp: %w", i, err)
		}
	}
	for i, one := range p.Ipv6Ranges {
		if list, err = add(list, one.CidrIpv6, false); err != nil {
			return nil, fmt.Errorf("Ipv6Ranges[%d].CidrIpv6: %w", i, err)
		}
	}
	return list, nil
}

// weigh adds what a permission weighs, whatever its ports: the quota is for all of them. A group that
// is referred to counts for both families.
func (r *Rules) weigh(g *pb.SecurityGroup, p awsPermission, q Question) {
	listed := r.listed[g.GetId()]
	if listed == nil {
		listed = &[2]bool{}
		r.listed[g.GetId()] = listed
	}
	g.WeightIpv4 += int32(len(p.IpRanges) + len(p.UserIdGroupPairs))
	g.WeightIpv6 += int32(len(p.Ipv6Ranges) + len(p.UserIdGroupPairs))
	for _, l := range p.PrefixListIds {
		switch {
		case slices.Contains(q.Lists, l.PrefixListId):
			g.WeightIpv4 += listWeight
			listed[0] = true
		case slices.Contains(q.ListsIPv6, l.PrefixListId):
			g.WeightIpv6 += listWeight
			listed[1] = true
		case !slices.Contains(g.GetUnknownPrefixLists(), l.PrefixListId):
			g.UnknownPrefixLists = append(g.UnknownPrefixLists, l.PrefixListId)
		}
	}
	slices.Sort(g.UnknownPrefixLists)
}

// admitLists notes the prefix lists of a permission that is about the port.
func (r *Rules) admitLists(p awsPermission, q Question) {
	for _, l := range p.PrefixListIds {
		switch {
		case slices.Contains(q.Lists, l.PrefixListId):
			r.lists[0] = true
		case slices.Contains(q.ListsIPv6, l.PrefixListId):
			r.lists[1] = true
		default:
			r.unknown = append(r.unknown, l.PrefixListId)
		}
	}
}

// admit keeps what is admitted by address.
func (r *Rules) admit(list []netip.Prefix) (err error) {
	for i := range families {
		of := slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return p.Addr().Is4() != (i == 0) })
		if r.sets[i], err = setOf(of); err != nil {
			return err
		}
	}
	return nil
}
