package cni

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Portmap and Bandwidth are the names of our copies of the reference plugins. A node may have others under their own
// names, as old as its distribution: those stay unused.
const (
	Portmap   = "kith-portmap"
	Bandwidth = "kith-bandwidth"
)

// Delegate is a plugin that kith-cni asks for the pods that want what it does, and for no others.
type Delegate struct {
	Name string
	// For is what a pod wants of it, as a person calls it.
	For string
	// Runtime is what the runtime says that the pod wants, by capability.
	Runtime map[string]json.RawMessage
}

// DelegateConf returns the network configuration for the delegate, with the result of what came before it; nil: none.
func (c NetConf) DelegateConf(d Delegate, prev *types100.Result) ([]byte, error) {
	conf := struct {
		CNIVersion    string                     `json:"cniVersion"`
		Name          string                     `json:"name"`
		Type          string                     `json:"type"`
		RuntimeConfig map[string]json.RawMessage `json:"runtimeConfig"`
		PrevResult    types.Result               `json:"prevResult,omitempty"`
	}{CNIVersion: c.CNIVersion, Name: c.Name, Type: d.Name, RuntimeConfig: d.Runtime}
	if prev != nil {
		result, err := prev.GetAsVersion(c.CNIVersion)
		if err != nil {
			return nil, types.NewError(types.ErrIncompatibleCNIVersion, "convert the result for "+d.Name, err.Error())
		}
		conf.PrevResult = result
	}
	data, err := json.Marshal(conf)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "encode network configuration of "+d.Name, err.Error())
	}
	return data, nil
}

// runtimeConf is what the runtime says of the pod, as far as a delegate is asked for it.
type runtimeConf struct {
	PortMappings json.RawMessage `json:"portMappings"`
	Bandwidth    json.RawMessage `json:"bandwidth"`
}

// delegates are those that the pod wants, in the order of ADD. What cannot be read is wanted: the delegate refuses it.
func (r runtimeConf) delegates() []Delegate {
	var all []Delegate
	if r.wantsPorts() {
		all = append(all, Delegate{Portmap, "host ports", map[string]json.RawMessage{"portMappings": r.PortMappings}})
	}
	if r.wantsLimits() {
		all = append(all, Delegate{Bandwidth, "bandwidth limits", map[string]json.RawMessage{"bandwidth": r.Bandwidth}})
	}
	return all
}

func (r runtimeConf) wantsPorts() bool {
	if len(r.PortMappings) == 0 {
		return false
	}
	var ports []json.RawMessage
	return json.Unmarshal(r.PortMappings, &ports) != nil || len(ports) > 0
}

func (r runtimeConf) wantsLimits() bool {
	if len(r.Bandwidth) == 0 {
		return false
	}
	type limits struct{ IngressRate, IngressBurst, EgressRate, EgressBurst uint64 }
	var got limits
	return json.Unmarshal(r.Bandwidth, &got) != nil || got != limits{}
}
