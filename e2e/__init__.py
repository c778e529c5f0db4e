"""End-to-end tests of vkubelet: a real control plane, real containers, the real kubectl."""
