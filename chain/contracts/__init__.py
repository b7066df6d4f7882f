"""PoCo's contracts: ABIs, calldata, views and event logs as typed values. Nothing here follows the chain."""
