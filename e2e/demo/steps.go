package demo

import "path"

// policy is one of the manifests.
type policy struct{ namespace, name string }

// step changes policies and says who reaches whom then. Without a rule everybody reaches everybody; of
// the rules that match a pair, the last decides.
type step struct {
	title       string
	remove, add []policy
	rules       []rule
}

// rule opens or closes the pairs that its patterns match.
type rule struct {
	effect   effect
	from, to string
}

type effect string

const (
	opens  effect = "opens"
	closes effect = "closes"
)

func (s step) opens(from, to string) bool {
	open := true
	for _, r := range s.rules {
		if matches(r.from, from) && matches(r.to, to) {
			open = r.effect == opens
		}
	}
	return open
}

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return pattern == "*" || (err == nil && ok)
}

// steps: `default/hello*` is both the pod and its Service.
func steps() []step {
	var (
		denyAll       = policy{"shop", "deny-all"}
		defaultDeny   = policy{"shop", "default-deny"}
		apiAllow      = policy{"shop", "api-allow"}
		coffeeEgress  = policy{"shop", "coffee-egress"}
		allowHello    = policy{"default", "allow-hello"}
		helloFromShop = policy{"default", "hello-from-shop"}

		nobodyToHello = rule{closes, "*", "default/hello*"}
		helloToItself = rule{opens, "default/hello", "default/hello:80"} // a pod always reaches itself
		curlToHello   = rule{opens, "default/curl", "default/hello*"}
		shopToHello   = rule{opens, "shop/*", "default/hello*"}
		nobodyToAPI   = rule{closes, "*", "shop/api"}
		coffeeToAPI   = rule{opens, "shop/coffee", "shop/api"}
		nobodyToShop  = rule{closes, "*", "shop/*"}
		shopToNobody  = rule{closes, "shop/*", "*"}
	)
	return []step{
		{title: "no policy: everybody reaches everybody"},
		{title: "deny-all: nobody reaches a pod of shop", add: []policy{denyAll},
			rules: []rule{nobodyToShop}},
		{title: "default-deny for both directions: nor does a pod of shop reach anybody", remove: []policy{denyAll}, add: []policy{defaultDeny},
			rules: []rule{nobodyToShop, shopToNobody}},
		{title: "api-allow alone: of all, only app: coffeeshop reaches the api", remove: []policy{defaultDeny}, add: []policy{apiAllow},
			rules: []rule{nobodyToAPI, coffeeToAPI}},
		{title: "egress is needed too: under default-deny, api-allow opens the api's end, not coffee's", add: []policy{defaultDeny},
			rules: []rule{nobodyToShop, shopToNobody}},
		{title: "coffee-egress opens the other end", add: []policy{coffeeEgress},
			rules: []rule{nobodyToShop, shopToNobody, coffeeToAPI}},
		{title: "allow-hello: only run: curl reaches hello, on the named port, also by the Service", remove: []policy{defaultDeny, apiAllow, coffeeEgress},
			add: []policy{allowHello}, rules: []rule{nobodyToHello, helloToItself, curlToHello}},
		{title: "a second policy adds: hello-from-shop", add: []policy{helloFromShop},
			rules: []rule{nobodyToHello, helloToItself, curlToHello, shopToHello}},
		{title: "the second policy without the first", remove: []policy{allowHello},
			rules: []rule{nobodyToHello, helloToItself, shopToHello}},
		{title: "the other order gives the same", add: []policy{allowHello},
			rules: []rule{nobodyToHello, helloToItself, curlToHello, shopToHello}},
		{title: "no policy is left: everybody reaches everybody again", remove: []policy{allowHello, helloFromShop}},
	}
}
