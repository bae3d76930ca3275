// On the page that asks for a token: what was kept for another one goes.
sessionStorage.clear();
