"""What tests share: real peers as processes, fakes in this process, and builders."""
